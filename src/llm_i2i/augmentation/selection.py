"""How a synthetic pair is kept: what pairs are ordered by, and which of them a selection rule lets through."""

from typing import Any, Final

import numpy as np
import pandas as pd

from llm_i2i.arrays import FloatArray
from llm_i2i.catalogue import item_indices
from llm_i2i.data.hashing import seeded_hash
from llm_i2i.errors import ArtifactError, GenerationError
from llm_i2i.i2i.user_items import user_items_from_frame
from llm_i2i.params import SelectionRule
from llm_i2i.schema import ITEM_ID, SOURCE_SYNTHETIC, USER_ID

PAIR: Final = [USER_ID, ITEM_ID]
# Quotas add at most so many pairs for each that volume keeps: few users with many items would drown in them.
QUOTA_SHARE: Final = 1.5
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
    p_yes = np.clip(scored["p_yes"].to_numpy(dtype=np.float64), 1e-9, 1 - 1e-9)
    confidence: FloatArray = np.log(p_yes) - np.log1p(-p_yes)
    generated = (scored["source"] == SOURCE_SYNTHETIC).to_numpy()
    if rule.confidence == "rank":
        confidence = np.where(generated, -scored["rank"].to_numpy(dtype=np.float64), confidence)
    if rule.confidence == "logprob":
        logprob = scored["logprob"].to_numpy(dtype=np.float64)
        confidence = np.where(generated, logprob, confidence)
        if np.isnan(confidence).any():
            found = f"{int(np.isnan(confidence).sum()):,} synthetic rows have no logprob"
            raise ArtifactError("artifacts/judged", found, "rows of the same run", "rerun `dvc repro judge`")
    return confidence


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
        synthetic: Rows with user_id, item_id, p_yes and confidence.
        real: Real pairs that the models see.
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
    ordered = by_confidence(synthetic)
    if rule.confidence == "rank":
        ordered = _capped(ordered, rule)
    chosen = _capped(_confident(ordered, rule), rule)
    tail = ordered[ITEM_ID].isin(items.loc[items["bucket"] == "tail", ITEM_ID])
    quota = np.where(tail, max(rule.item_quota, rule.tail_quota), rule.item_quota)
    in_quota = ordered.groupby(ITEM_ID, sort=False).cumcount().to_numpy() < quota
    added = ordered.index[in_quota].difference(chosen.index, sort=False)
    if rule.mode == "volume":
        added = added[: int(QUOTA_SHARE * len(chosen))]
    chosen = ordered[ordered.index.isin(chosen.index.union(added))]
    if chosen.empty:
        raise _nothing_survives(ordered, arm, rule)
    return chosen


def by_confidence(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows by confidence, the highest first.

    Equal confidence (a saturated model gives much of it) is ordered by a hash of the pair, the same for volume
    and cap: an order by item_id would favour some items, two orders would let a stricter filter keep new rows.
    """
    ordered = rows.sort_values(PAIR)
    tie = seeded_hash(0, ordered[USER_ID], ordered[ITEM_ID])
    return ordered.iloc[np.lexsort((tie, -ordered["confidence"].to_numpy()))]


def _capped(ordered: pd.DataFrame, rule: SelectionRule) -> pd.DataFrame:
    """The first rows of each user, at most as many as the rule allows; their order stays."""
    return ordered.groupby(USER_ID, sort=False).head(rule.max_synthetic_per_user)


def _confident(ordered: pd.DataFrame, rule: SelectionRule) -> pd.DataFrame:
    """Rows with p_yes at or above the threshold, or the most confident share; their order stays."""
    if rule.mode == "volume":
        return ordered.iloc[: int(rule.pairs_per_user * ordered[USER_ID].nunique() + 0.5)]
    # In float32 as p_yes itself: otherwise a row stored as 0.9 would fail a threshold of 0.9.
    return ordered[ordered["p_yes"].to_numpy() >= np.float32(rule.threshold)]


def _connected(synthetic: pd.DataFrame, real: pd.DataFrame, items: pd.DataFrame) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """For each synthetic row: did any user take its item together with one of its user's? Shape (n_rows,)."""
    taken = user_items_from_frame(real, items)
    together = (taken.T @ taken).tocsr()
    user = pd.Index(real[USER_ID].unique()).sort_values().get_indexer(synthetic[USER_ID])
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
