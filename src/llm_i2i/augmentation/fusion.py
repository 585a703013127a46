"""Fuse real and synthetic interactions into what the I2I models train on, one arm at a time."""

import logging
from collections import Counter
from typing import Any, Final

import numpy as np
import pandas as pd
from scipy import sparse

from llm_i2i.data.hashing import seeded_hash
from llm_i2i.errors import ArtifactError, GenerationError
from llm_i2i.params import Arm, FuseParams
from llm_i2i.schema import (
    BUCKETS,
    CONTROLS,
    FUSED,
    ITEM_ID,
    SCORED,
    SOURCE_REAL,
    SOURCE_SYNTHETIC,
    USER_ID,
)

logger = logging.getLogger(__name__)

_PAIR: Final = [USER_ID, ITEM_ID]
_FILTERED: Final = "_filtered"  # suffix of a control's arm that goes through the discriminator
_FILTERED_REAL: Final = ("llm_i2i", "no_generator", *(name + _FILTERED for name in CONTROLS))
_WITHOUT_SYNTHETIC: Final = ("real", "no_generator")
_WITHOUT_REAL: Final = ("synthetic_only",)
_BLOCK: Final = 1_000_000  # pairs of items that are looked up at a time


def control_of(arm: Arm) -> str:
    """The control whose rows an arm trains on, `item_knn` for item_knn and item_knn_filtered; else ""."""
    name = arm.removesuffix(_FILTERED)
    return name if name in CONTROLS else ""


def fuse(
    *,
    arm: Arm,
    train: pd.DataFrame,
    valid: pd.DataFrame,
    scored: pd.DataFrame,
    items: pd.DataFrame,
    params: FuseParams,
    synthetic: pd.DataFrame | None = None,
    control: pd.DataFrame | None = None,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Keep the real and synthetic rows that an arm trains on; the order of input rows does not matter.

    real: every real row. llm_i2i: real rows (without those that score below `real_threshold`, if
    `filter_real`) and the synthetic rows that pass the threshold or quantile, at most
    `max_synthetic_per_user` a user. no_generator: the real rows of llm_i2i alone. synthetic_only: its synthetic rows
    alone. no_discriminator: every real row and the generator's first `max_synthetic_per_user` rows a user.
    random, popularity, item_knn: every real row and, for each user, the control's first rows, as many as arm
    `control_volume` keeps.
    NAME_filtered: the real rows of llm_i2i and, for each user, the control's rows of the highest confidence, as
    many as llm_i2i keeps. So a control differs from its LLM arm in nothing but which items are added.

    Differs from the paper in four options of llm_i2i (off = the paper). `popularity_discount` orders by confidence
    less discount x log(n_train): how much likelier than its popularity alone a pair is. `connected_only` drops a
    pair (user, item) if no one took the item together with one of the user's: Swing's similarity needs two users
    of both items, and such a pair gives the item no second one. `item_quota` and `tail_quota` keep, besides what
    filter and cap keep, each item's (each tail item's) most confident pairs: a filter over all pairs leaves most
    items, and nearly all of the tail, with none.

    Args:
        arm: Which arm.
        train: schema.INTERACTIONS, all real training rows.
        valid: schema.INTERACTIONS; read only if `params.index` is "train+valid".
        scored: schema.SCORED with `rank` (int32; 1 = the generator's first choice, 0 for real rows).
        items: schema.ITEMS.
        params: Thresholds and caps.
        synthetic: schema.SYNTHETIC, for its logprob; read only if `params.confidence` is "logprob".
        control: Rows of the arm's control, with user_id, item_id and rank; only an unfiltered control's arm
            reads them (a filtered one finds its rows in `scored`, under the control's name as source).

    Returns:
        schema.FUSED with weight 1.0 everywhere, sorted by (user_id, item_id); and the kept counts.

    Raises:
        ArtifactError: `scored` does not fit: bad p_yes, unknown users or items, a synthetic row that is
            a real one.
        GenerationError: No row survives a filter that the arm needs to let rows through.
    """
    _check_scored(scored, train, items)
    real = _visible(train, valid, params)
    scored = scored.assign(confidence=_confidence(scored, synthetic, items, params))
    kept_real = real.iloc[:0] if arm in _WITHOUT_REAL else real
    if arm in _FILTERED_REAL and params.filter_real:
        kept_real = _filter_real(real, scored, params.real_threshold)
    offered = kept_synthetic = scored.iloc[:0]
    if arm not in _WITHOUT_SYNTHETIC:
        # Proposing a user's valid item is right, not wrong; where valid rows are real ones it says nothing new.
        generated = scored[scored["source"] == SOURCE_SYNTHETIC]
        offered = generated[~_is_in(generated, real)]
        volume = params.control_volume if arm in CONTROLS else arm
        kept_synthetic = _choose_synthetic(offered, real, items, volume, params)
        if control_of(arm):
            rows = _control_rows(arm, control, scored)
            offered = rows[~_is_in(rows, real)]
            kept_synthetic = _same_volume(offered, kept_synthetic)
    parts = [kept_real.assign(source=SOURCE_REAL), kept_synthetic[_PAIR].assign(source=SOURCE_SYNTHETIC)]
    fused = pd.concat(parts).assign(weight=1.0).astype(FUSED).sort_values(_PAIR, ignore_index=True)
    counts = {
        "arm": arm,
        "index": params.index,
        "rows": len(fused),
        "real_in": len(real),
        "real_kept": len(kept_real),
        "synthetic_in": len(offered),
        "synthetic_kept": len(kept_synthetic),
        "share_kept_synthetic": len(kept_synthetic) / len(offered) if len(offered) else 0.0,
        "by_bucket": _by_bucket(fused, items),
    }
    _log(counts, params)
    return fused[list(FUSED)], counts


def _visible(train: pd.DataFrame, valid: pd.DataFrame, params: FuseParams) -> pd.DataFrame:
    """The real pairs that a model may see under the index setting: the one place where valid rows can enter."""
    if params.index == "train":
        return train[_PAIR]
    return pd.concat([train[_PAIR], valid[_PAIR]], ignore_index=True)


def _confidence(
    scored: pd.DataFrame, synthetic: pd.DataFrame | None, items: pd.DataFrame, params: FuseParams
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """What rows are ordered by: the logit of p_yes or the generator's logprob, less the popularity discount.

    Rows without a logprob (real ones, controls) are ordered by p_yes: they never compete with those that have one.
    """
    p_yes = np.clip(scored["p_yes"].to_numpy(dtype=np.float64), 1e-9, 1 - 1e-9)
    confidence = np.log(p_yes) - np.log1p(-p_yes)
    if params.confidence == "logprob":
        if synthetic is None:
            raise ArtifactError(
                "synthetic.parquet", "was not given", "the logprobs of fuse.confidence: logprob"
            )
        logprob = (
            synthetic.set_index(_PAIR)["logprob"].reindex(pd.MultiIndex.from_frame(scored[_PAIR])).to_numpy()
        )
        generated = (scored["source"] == SOURCE_SYNTHETIC).to_numpy()
        if np.isnan(logprob[generated]).any():
            found = f"{int(np.isnan(logprob[generated]).sum()):,} synthetic rows have no logprob in synthetic.parquet"
            raise ArtifactError("scored.parquet", found, "rows of the same run", "rerun `dvc repro score`")
        confidence = np.where(generated, logprob, confidence)
    n_train = scored[ITEM_ID].map(items.set_index(ITEM_ID)["n_train"]).to_numpy(dtype=np.float64)
    discounted: np.ndarray[Any, np.dtype[np.float64]] = confidence - params.popularity_discount * np.log(
        np.maximum(n_train, 1)
    )
    return discounted


def _choose_synthetic(
    synthetic: pd.DataFrame, real: pd.DataFrame, items: pd.DataFrame, arm: Arm, params: FuseParams
) -> pd.DataFrame:
    """Filter by confidence (not in arm no_discriminator), cap each user's rows, add the items' quotas."""
    if synthetic.empty:
        raise GenerationError(
            f"fuse, arm {arm}",
            "there is no synthetic row",
            fix="raise `synthesize.max_users` or `synthesize.items_per_user` and rerun `dvc repro`",
        )
    if arm == "no_discriminator":
        chosen = synthetic.sort_values([USER_ID, "rank", ITEM_ID])
        return chosen.groupby(USER_ID, sort=False).head(params.max_synthetic_per_user)
    if params.connected_only:
        connected = _connected(synthetic, real, items)
        if not connected.any():
            raise GenerationError(
                f"fuse, arm {arm}",
                f"nobody took the item of any of {len(synthetic):,} synthetic rows together with an item of its user",
                "at least one such item",
                "set `fuse.connected_only: false` in params.yaml",
            )
        synthetic = synthetic[connected]
    ordered = _by_confidence(synthetic)
    chosen = _confident(ordered, params).groupby(USER_ID, sort=False).head(params.max_synthetic_per_user)
    tail = ordered[ITEM_ID].isin(items.loc[items["bucket"] == "tail", ITEM_ID])
    quota = np.where(tail, max(params.item_quota, params.tail_quota), params.item_quota)
    in_quota = ordered.groupby(ITEM_ID, sort=False).cumcount().to_numpy() < quota
    chosen = ordered[ordered.index.isin(chosen.index) | in_quota]
    if chosen.empty:
        raise _nothing_survives(synthetic, arm, params)
    return chosen


def _connected(
    synthetic: pd.DataFrame, real: pd.DataFrame, items: pd.DataFrame
) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """For each synthetic row: did any user take its item together with one of its user's? Shape (n_rows,)."""
    users, catalogue = pd.Index(real[USER_ID].unique()), pd.Index(items[ITEM_ID])
    place_of_real = users.get_indexer(real[USER_ID]), catalogue.get_indexer(real[ITEM_ID])
    taken = sparse.csr_array((np.ones(len(real), np.int32), place_of_real), shape=(len(users), len(items)))
    together = sparse.csr_array(taken.T @ taken)
    user, item = users.get_indexer(synthetic[USER_ID]), catalogue.get_indexer(synthetic[ITEM_ID])
    found = np.zeros(len(synthetic), np.bool_)
    sizes = np.where(user >= 0, np.diff(taken.indptr)[user], 0)
    for block in np.array_split(np.arange(len(synthetic)), 1 + int(sizes.sum()) // _BLOCK):
        # Every pair of a row's item and an item of its user.
        row = np.repeat(block, sizes[block])
        place = np.arange(len(row)) - np.repeat(np.cumsum(sizes[block]) - sizes[block], sizes[block])
        own = taken.indices[taken.indptr[user[row]] + place]
        found[row[together[item[row], own] > 0]] = True
    return found


def _control_rows(arm: Arm, control: pd.DataFrame | None, scored: pd.DataFrame) -> pd.DataFrame:
    """The rows of an arm's control, the first to be kept first."""
    name = control_of(arm)
    if arm != name:
        rows = scored[scored["source"] == name]
        if rows.empty:
            found, fix = f"holds no row of source {name}", f"add {name} to `score.sources` in params.yaml"
            raise ArtifactError("scored.parquet", found, f"what arm {arm} trains on", fix)
        return _by_confidence(rows)
    if control is None:
        raise ArtifactError(f"controls/{name}.parquet", "was not given", f"what arm {arm} trains on")
    return control.sort_values([USER_ID, "rank", ITEM_ID])


def _same_volume(rows: pd.DataFrame, chosen: pd.DataFrame) -> pd.DataFrame:
    """The first rows of each user, as many as `chosen` has of that user."""
    volume = rows[USER_ID].map(chosen[USER_ID].value_counts()).fillna(0).to_numpy()
    return rows[rows.groupby(USER_ID).cumcount().to_numpy() < volume]


def _by_confidence(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows by confidence, the highest first.

    Equal confidence (a saturated model gives much of it) is ordered by a hash of the pair, the same for quantile
    and cap: an order by item_id would favour some items, two orders would let a stricter filter keep new rows.
    """
    ordered = rows.sort_values(_PAIR)
    tie = seeded_hash(0, ordered[USER_ID], ordered[ITEM_ID])
    return ordered.iloc[np.lexsort((tie, -ordered["confidence"].to_numpy()))]


def _confident(ordered: pd.DataFrame, params: FuseParams) -> pd.DataFrame:
    """Rows with p_yes at or above the threshold, or the most confident share; their order stays."""
    if params.mode == "quantile":
        return ordered.iloc[: int(params.quantile * len(ordered) + 0.5)]
    # In float32 as p_yes itself: otherwise a row stored as 0.9 would fail a threshold of 0.9.
    return ordered[ordered["p_yes"].to_numpy() >= np.float32(params.threshold)]


def _nothing_survives(synthetic: pd.DataFrame, arm: Arm, params: FuseParams) -> GenerationError:
    p_yes = synthetic["p_yes"].to_numpy(dtype=np.float64)
    quantiles = ", ".join(f"{share:.0%} {np.quantile(p_yes, share):.3g}" for share in (0.5, 0.9, 0.99))
    highest = np.floor(p_yes.max() * 1000) / 1000  # rounded down: the advice must work
    rule, fix = f"p_yes >= {params.threshold:g}", f"lower `fuse.threshold` to {highest:g} or less"
    if params.mode == "quantile":
        rule, fix = f"the upper {params.quantile:g} by confidence", "raise `fuse.quantile`"
    return GenerationError(
        f"fuse, arm {arm}",
        f"none of {len(synthetic):,} synthetic rows survives {rule}"
        f" (p_yes: max {p_yes.max():.3g}, quantiles {quantiles})",
        "at least one",
        f"{fix} in params.yaml",
    )


def _filter_real(real: pd.DataFrame, scored: pd.DataFrame, threshold: float) -> pd.DataFrame:
    """Drop the real rows that were scored below the threshold; rows without a score stay."""
    doubtful = scored[
        (scored["source"] == SOURCE_REAL) & (scored["p_yes"].to_numpy() < np.float32(threshold))
    ]
    kept = real[~_is_in(real, doubtful)]
    if kept.empty:
        raise GenerationError(
            "fuse",
            f"none of {len(real):,} real rows has p_yes >= {threshold:g}",
            "at least one",
            "lower `fuse.real_threshold` or set `fuse.filter_real: false` in params.yaml",
        )
    return kept


def _check_scored(scored: pd.DataFrame, train: pd.DataFrame, items: pd.DataFrame) -> None:
    """Refuse rows that no run of the stages before can have made."""
    missing = [column for column in (*SCORED, "rank") if column not in scored]
    if missing:
        raise ArtifactError("scored.parquet", f"columns {missing} are missing", fix="rerun `dvc repro score`")
    p_yes = scored["p_yes"].to_numpy()
    synthetic = scored["source"].isin([SOURCE_SYNTHETIC, *CONTROLS]).to_numpy()
    in_train = _is_in(scored, train)
    rules = {
        "have a p_yes outside [0, 1]": ~((p_yes >= 0) & (p_yes <= 1)),
        "have an unknown source": ~synthetic & (scored["source"] != SOURCE_REAL).to_numpy(),
        "occur twice": scored.duplicated([*_PAIR, "source"]).to_numpy(),
        "have an item outside the catalogue": ~scored[ITEM_ID].isin(items[ITEM_ID]).to_numpy(),
        "have a user outside train": ~scored[USER_ID].isin(train[USER_ID]).to_numpy(),
        "are synthetic but equal a real row of train": synthetic & in_train,
        "are called real but are not in train": ~synthetic & ~in_train,
    }
    for rule, broken in rules.items():
        if broken.any():
            first = scored[broken].sort_values(_PAIR).iloc[0]
            found = f"{int(broken.sum()):,} rows {rule}"
            example = f" (first: user {first[USER_ID]}, item {first[ITEM_ID]})"
            raise ArtifactError("scored.parquet", found + example, fix="rerun `dvc repro score`")


def _is_in(rows: pd.DataFrame, others: pd.DataFrame) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """For each row: is its (user_id, item_id) among the others? Shape (n_rows,)."""
    pairs = pd.MultiIndex.from_frame(rows[_PAIR])
    return np.asarray(pairs.isin(pd.MultiIndex.from_frame(others[_PAIR])), dtype=np.bool_)


def _by_bucket(fused: pd.DataFrame, items: pd.DataFrame) -> dict[str, dict[str, int]]:
    """Kept rows by the bucket of their item and by source."""
    bucket = fused[ITEM_ID].map(items.set_index(ITEM_ID)["bucket"])
    counts = Counter(zip(bucket, fused["source"], strict=True))
    sources = (SOURCE_REAL, SOURCE_SYNTHETIC)
    return {name: {source: counts[name, source] for source in sources} for name in BUCKETS}


def _log(counts: dict[str, Any], params: FuseParams) -> None:
    rule = ""
    if counts["arm"] == "llm_i2i":
        by_threshold = params.mode == "threshold"
        rule = f" at p_yes >= {params.threshold:g}" if by_threshold else f" in the upper {params.quantile:g}"
    logger.info(
        "fuse %s: kept %s of %s real and %s of %s synthetic pairs (%.1f %%)%s",
        counts["arm"],
        *(f"{counts[key]:,}" for key in ("real_kept", "real_in", "synthetic_kept", "synthetic_in")),
        100 * counts["share_kept_synthetic"],
        rule,
    )
