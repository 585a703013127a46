"""How a synthetic pair is kept: what pairs are ordered by, and which of them a selection rule lets through."""

from typing import Final

import numpy as np
import pandas as pd

from llm_i2i.arrays import FloatArray
from llm_i2i.augmentation.pairs import PAIR, codes_of, keys, place_in_group
from llm_i2i.catalogue import item_indices
from llm_i2i.data.hashing import Mask, places_by_hash
from llm_i2i.errors import ArtifactError, GenerationError
from llm_i2i.i2i.user_items import user_items_from_frame
from llm_i2i.params import SelectionRule
from llm_i2i.schema import ITEM_ID, SOURCE_SYNTHETIC, TAIL, USER_ID

# Quotas add at most so many pairs for each that volume keeps: few users with many items would drown in them.
QUOTA_SHARE: Final = 4.0
_BLOCK: Final = 1_000_000  # pairs of items that are looked up at a time


def confidence_of(scored: pd.DataFrame, rule: SelectionRule) -> FloatArray:
    """What rows are ordered by: rank, the logit of p_yes or the generator's logprob.

    Under "rank" and "logprob" rows that the generator did not write (real ones, controls) are ordered by p_yes: they
    never compete with those that it wrote.

    Args:
        scored: schema.JUDGED.
        rule: The selection rule in force.

    Returns:
        float64 (n_rows,).

    Raises:
        ArtifactError: A logprob that is needed is missing.
    """
    if rule.confidence == "p_yes":
        return _logit(scored["p_yes"])
    generated = (scored["source"] == SOURCE_SYNTHETIC).to_numpy()
    confidence = scored[rule.confidence].to_numpy(dtype=np.float64, copy=True)
    if rule.confidence == "rank":
        np.negative(confidence, out=confidence)
    confidence[~generated] = _logit(scored.loc[~generated, "p_yes"])
    if rule.confidence == "logprob" and np.isnan(confidence).any():
        found = f"{int(np.isnan(confidence).sum()):,} synthetic rows have no logprob"
        raise ArtifactError("artifacts/judged", found, "rows of the same run", "rerun `dvc repro judge`")
    return confidence


def _logit(probability: pd.Series) -> FloatArray:
    p = np.clip(probability.to_numpy(dtype=np.float64), 1e-9, 1 - 1e-9)
    found: FloatArray = np.log(p) - np.log1p(-p)
    return found


def choose(
    synthetic: pd.DataFrame, *, real: pd.DataFrame, items: pd.DataFrame, rule: SelectionRule, arm: str
) -> pd.DataFrame:
    """The rows that a rule keeps: filtered by confidence, capped per user, then the items' quotas added.

    Under confidence "rank" (the paper) the cap comes first: the generator writes so many pairs per user, and the
    discriminator drops what it doubts of these; its p_yes orders nothing.

    `rule.connected_only` drops a pair (user, item) first if nobody took the item together with one of the user's:
    Swing's similarity needs two users of both items, and such a pair gives the item no second one. `rule.item_quota`
    and `rule.tail_quota` keep, besides what filter and cap keep, each item's (each tail item's) most confident pairs:
    a filter over all pairs leaves most items, and nearly all of the tail, with none.

    Args:
        synthetic: Rows with user_id, item_id, p_yes and confidence, encoded.
        real: Real pairs that the models see, encoded, the codes in common with `synthetic`.
        items: schema.ITEMS.
        rule: The selection rule in force.
        arm: For messages.

    Raises:
        GenerationError: No row is left.
    """
    if rule.connected_only:
        connected = _connected(synthetic, real, items)
        if not connected.any():
            raise GenerationError(
                f"fuse, arm {arm}",
                f"nobody took the item of any of {len(synthetic):,} synthetic rows together with an item of its user",
                "at least one such item",
                "set `fuse.selection: paper`, or `fuse.custom.connected_only: false`, in params.yaml",
            )
        synthetic = synthetic[connected]
    has_quota = bool(rule.item_quota or rule.tail_quota)
    alone = rule.mode == "threshold" and not has_quota  # no user's rows compete with another's
    ordered = by_confidence(synthetic[[*PAIR, "p_yes", "confidence"]], within_user=alone)
    if rule.confidence == "rank":
        ordered = ordered[place_in_group(ordered[USER_ID]) < rule.max_synthetic_per_user]
    chosen = _confident(ordered, rule)
    chosen[chosen] = place_in_group(ordered.loc[chosen, USER_ID]) < rule.max_synthetic_per_user
    if has_quota:
        tail = ordered[ITEM_ID].isin(items.loc[items["bucket"] == TAIL, ITEM_ID])
        quota = np.where(tail, max(rule.item_quota, rule.tail_quota), rule.item_quota)
        added = (place_in_group(ordered[ITEM_ID]) < quota) & ~chosen
        if rule.mode == "volume":
            added &= np.cumsum(added) <= int(QUOTA_SHARE * chosen.sum())
        chosen |= added
    if not chosen.any():
        raise _nothing_survives(ordered, arm, rule)
    return ordered[chosen]


def by_confidence(rows: pd.DataFrame, *, within_user: bool) -> pd.DataFrame:
    """Rows by confidence, the highest first.

    Equal confidence (a saturated model gives much of it) is ordered by a hash of the pair, the same for volume
    and cap: an order by item_id would favour some items, two orders would let a stricter filter keep new rows.

    Args:
        rows: Encoded user_id, item_id; and confidence.
        within_user: Sort by user first: enough where nothing but the order of each user's own rows counts, and much
            cheaper, as hardly any of these tie.
    """
    above = (codes_of(rows[USER_ID]),) if within_user else ()
    rows = rows.iloc[np.lexsort((keys(rows), -rows["confidence"].to_numpy(), *above))]
    ties = np.zeros(len(rows), dtype=np.bool_)
    ties[1:] = np.diff(rows["confidence"].to_numpy()) == 0
    if within_user:
        ties[1:] &= np.diff(codes_of(rows[USER_ID])) == 0
    return rows.iloc[places_by_hash(ties, 0, rows[USER_ID], rows[ITEM_ID])] if ties.any() else rows


def _confident(ordered: pd.DataFrame, rule: SelectionRule) -> Mask:
    """Which rows have p_yes at or above the threshold, or are the most confident share."""
    if rule.mode == "volume":
        return np.arange(len(ordered)) < int(rule.pairs_per_user * ordered[USER_ID].nunique() + 0.5)
    # In float32 as p_yes itself: otherwise a row stored as 0.9 would fail a threshold of 0.9.
    return ordered["p_yes"].to_numpy() >= np.float32(rule.threshold)


def _connected(synthetic: pd.DataFrame, real: pd.DataFrame, items: pd.DataFrame) -> Mask:
    """For each synthetic row: did any user take its item together with one of its user's? Shape (n_rows,)."""
    taken = user_items_from_frame(real, items)
    together = (taken.T @ taken).tocsr()
    known = np.unique(codes_of(real[USER_ID]))  # the matrix has their rows in this order
    rows = np.full(len(real[USER_ID].cat.categories), -1)
    rows[known] = np.arange(len(known))
    user = rows[codes_of(synthetic[USER_ID])]
    item = item_indices(synthetic[ITEM_ID], items, where="artifacts/scored")
    found = np.zeros(len(synthetic), np.bool_)
    sizes = np.where(user >= 0, np.diff(taken.indptr)[user], 0)
    for block in np.array_split(np.arange(len(synthetic)), 1 + int(sizes.sum()) // _BLOCK):
        # Every pair of a row's item and an item of its user.
        row = np.repeat(block, sizes[block])
        place = np.arange(len(row)) - np.repeat(np.cumsum(sizes[block]) - sizes[block], sizes[block])
        own = taken.indices[taken.indptr[user[row]] + place]
        found[row[together[item[row], own] > 0]] = True
    return found


def _nothing_survives(synthetic: pd.DataFrame, arm: str, rule: SelectionRule) -> GenerationError:
    p_yes = synthetic["p_yes"].to_numpy(dtype=np.float64)
    quantiles = ", ".join(f"{share:.0%} {np.quantile(p_yes, share):.3g}" for share in (0.5, 0.9, 0.99))
    highest = np.floor(p_yes.max() * 1000) / 1000  # rounded down: the advice must work
    found, fix = f"p_yes >= {rule.threshold:g}", f"lower `fuse.threshold` to {highest:g} or less"
    if rule.mode == "volume":
        found, fix = f"{rule.pairs_per_user:g} pairs per user", "raise `fuse.custom.pairs_per_user`"
    return GenerationError(
        f"fuse, arm {arm}",
        f"none of {len(synthetic):,} synthetic rows survives {found}"
        f" (p_yes: max {p_yes.max():.3g}, quantiles {quantiles})",
        "at least one",
        f"{fix} in params.yaml",
    )
