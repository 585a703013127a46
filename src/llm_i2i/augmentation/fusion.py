"""Fuse real and synthetic interactions into what the I2I models train on, one arm at a time."""

import logging
from typing import Any, Final

import numpy as np
import pandas as pd

from llm_i2i.arrays import IntArray
from llm_i2i.augmentation.pairs import PAIR, among, codes_of, keys, place_in_group, with_common_codes
from llm_i2i.augmentation.selection import by_confidence, choose, confidence_of
from llm_i2i.catalogue import item_indices
from llm_i2i.data.hashing import Mask
from llm_i2i.errors import ArtifactError, GenerationError
from llm_i2i.params import Arm, FuseParams
from llm_i2i.schema import (
    BUCKETS,
    CONTROLS,
    ITEM_ID,
    JUDGED,
    SOURCE_REAL,
    SOURCE_SYNTHETIC,
    USER_ID,
    decode,
    encode,
    is_encoded,
)

logger = logging.getLogger(__name__)

_FILTERED: Final = "_filtered"  # suffix of a control's arm that goes through the discriminator
_FILTERED_REAL: Final = ("llm_i2i", "no_generator", *(name + _FILTERED for name in CONTROLS))
_WITHOUT_SYNTHETIC: Final = ("real", "no_generator")
_WITHOUT_REAL: Final = ("synthetic_only",)


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
    control: pd.DataFrame | None = None,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Keep the real and synthetic rows that an arm trains on; the order of input rows does not matter.

    real: every real row; `scored` is not looked at. llm_i2i: real rows (without those that score below
    `real_threshold`, if `filter_real`) and the synthetic rows that `params.rule` keeps. no_generator: the real rows of
    llm_i2i alone. synthetic_only: its synthetic rows alone. no_discriminator: every real row and what the rule keeps by
    the generator's confidence: under a threshold on p_yes, which it then has not, each user's first rows up to the cap.
    random, popularity, item_knn: every real row and, per user, the control's first rows, as many as arm
    `control_volume` keeps.
    NAME_filtered: the real rows of llm_i2i and, per user, the control's rows of the highest confidence, as
    many as llm_i2i keeps. So a control differs from its LLM arm in nothing but which items are added.

    Identifiers and sources may be encoded (schema.encode) in all tables but `items`; the result's are if train's are.

    Args:
        arm: Which arm.
        train: schema.INTERACTIONS, all real training rows.
        valid: schema.INTERACTIONS; read only if `params.index` is "train+valid".
        scored: schema.JUDGED, and in the arm of a filtered control also its rows.
        items: schema.ITEMS.
        params: Section fuse.
        control: Rows of the arm's control, with user_id, item_id and rank; only an unfiltered control's arm
            reads them (a filtered one finds its rows in `scored`, under the control's name as source).

    Returns:
        schema.FUSED with weight 1.0 everywhere, sorted by (user_id, item_id); and the kept counts.

    Raises:
        ArtifactError: `scored` does not fit: bad p_yes, unknown users or items, a synthetic row that is
            a real one.
        GenerationError: No row survives a filter that the arm needs to let rows through.
    """
    if arm in CONTROLS and control is None:
        raise ArtifactError(f"controls/{arm}.parquet", "was not given", f"what arm {arm} trains on")
    as_given = encode if is_encoded(train[USER_ID]) else decode
    control = train.iloc[:0][PAIR].assign(rank=0) if control is None else control
    train, valid, scored, control = with_common_codes(train, _visible(valid, params), scored, control)
    if arm != SOURCE_REAL:
        _check_scored(scored, train, items)
    real = pd.concat([train[PAIR], valid[PAIR]], ignore_index=True)
    scored = scored.assign(confidence=confidence_of(scored, params.rule))
    kept_real = real.iloc[:0] if arm in _WITHOUT_REAL else real
    if arm in _FILTERED_REAL and params.filter_real:
        kept_real = _filter_real(real, scored, params.real_threshold)
    offered = kept_synthetic = scored.iloc[:0]
    if arm not in _WITHOUT_SYNTHETIC:
        # Proposing a user's valid item is right, not wrong; where valid rows are real ones it says nothing new.
        offered = scored[(scored["source"] == SOURCE_SYNTHETIC).to_numpy() & ~among(scored, real)]
        if not control_of(arm):
            del scored  # all that is read of it is in `offered`: its memory is the choice's
        volume = params.control_volume if arm in CONTROLS else arm
        kept_synthetic = _choose_synthetic(offered, real, items, volume, params)
        if control_of(arm):
            rows = _control_rows(arm, control, scored)
            offered = rows[~among(rows, real)]
            kept_synthetic = _same_volume(offered, kept_synthetic)
    fused = _joined(kept_real, kept_synthetic)
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
    return fused.assign(**{name: as_given(fused[name]) for name in (*PAIR, "source")}), counts


def _joined(real: pd.DataFrame, synthetic: pd.DataFrame) -> pd.DataFrame:
    """schema.FUSED, encoded, sorted by (user_id, item_id)."""
    pairs = pd.concat([real[PAIR], synthetic[PAIR]])
    order = np.argsort(keys(pairs), kind="stable")
    source = pd.Categorical.from_codes((order >= len(real)).astype(np.int8), pd.Index([SOURCE_REAL, SOURCE_SYNTHETIC]))
    return pairs.iloc[order].assign(source=source, weight=np.float32(1.0)).reset_index(drop=True)


def _visible(valid: pd.DataFrame, params: FuseParams) -> pd.DataFrame:
    """The valid rows that a model may see under the index setting: the one place where they can enter."""
    return valid.iloc[:0] if params.index == "train" else valid


def _choose_synthetic(
    synthetic: pd.DataFrame, real: pd.DataFrame, items: pd.DataFrame, arm: Arm, params: FuseParams
) -> pd.DataFrame:
    """What the rule keeps, in arm no_discriminator by the generator's confidence alone."""
    if synthetic.empty:
        raise GenerationError(
            f"fuse, arm {arm}",
            "there is no synthetic row",
            fix="raise `synthesize.max_users` or `synthesize.items_per_user` and rerun `dvc repro`",
        )
    rule = params.rule
    if arm == "no_discriminator":
        if rule.mode == "threshold":
            ordered = _by_rank(synthetic)
            return ordered[place_in_group(ordered[USER_ID]) < rule.max_synthetic_per_user]
        rule = rule.model_copy(update={"confidence": "logprob"})
        synthetic = synthetic.assign(confidence=confidence_of(synthetic, rule))
    return choose(synthetic, real=real, items=items, rule=rule, arm=arm)


def _by_rank(rows: pd.DataFrame) -> pd.DataFrame:
    """Each user's rows by the rank that their source gave them."""
    order = np.lexsort((codes_of(rows[ITEM_ID]), rows["rank"].to_numpy(), codes_of(rows[USER_ID])))
    return rows.iloc[order]


def _control_rows(arm: Arm, control: pd.DataFrame, scored: pd.DataFrame) -> pd.DataFrame:
    """The rows of an arm's control, the first to be kept first."""
    name = control_of(arm)
    if arm != name:
        rows = scored[scored["source"] == name]
        if rows.empty:
            found, fix = f"holds no row of source {name}", f"add {name} to `score.sources` in params.yaml"
            raise ArtifactError("artifacts/scored", found, f"what arm {arm} trains on", fix)
        return by_confidence(rows, within_user=True)
    return _by_rank(control)


def _same_volume(rows: pd.DataFrame, chosen: pd.DataFrame) -> pd.DataFrame:
    """The first rows of each user, as many as `chosen` has of that user."""
    volume = np.bincount(codes_of(chosen[USER_ID]), minlength=len(chosen[USER_ID].cat.categories))
    return rows[place_in_group(rows[USER_ID]) < volume[codes_of(rows[USER_ID])]]


def _filter_real(real: pd.DataFrame, scored: pd.DataFrame, threshold: float) -> pd.DataFrame:
    """Drop the real rows that were scored below the threshold; rows without a score stay."""
    doubtful = scored[(scored["source"] == SOURCE_REAL) & (scored["p_yes"].to_numpy() < np.float32(threshold))]
    kept = real[~among(real, doubtful)]
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
    missing = [column for column in JUDGED if column not in scored]
    if missing:
        raise ArtifactError("artifacts/judged", f"columns {missing} are missing", fix="rerun `dvc repro judge`")
    p_yes = scored["p_yes"].to_numpy()
    synthetic = scored["source"].isin([SOURCE_SYNTHETIC, *CONTROLS]).to_numpy()
    in_train = among(scored, train)
    sources, names = pd.factorize(scored["source"])
    has_train = np.zeros(len(train[USER_ID].cat.categories), dtype=np.bool_)
    has_train[codes_of(train[USER_ID])] = True
    rules = {
        "have a p_yes outside [0, 1]": ~((p_yes >= 0) & (p_yes <= 1)),
        "have an unknown source": ~synthetic & (scored["source"] != SOURCE_REAL).to_numpy(),
        "occur twice": _repeated(keys(scored) * len(names) + sources),
        "have an item outside the catalogue": ~scored[ITEM_ID].isin(items[ITEM_ID]).to_numpy(),
        "have a user outside train": ~has_train[codes_of(scored[USER_ID])],
        "are synthetic but equal a real row of train": synthetic & in_train,
        "are called real but are not in train": ~synthetic & ~in_train,
    }
    for rule, broken in rules.items():
        if broken.any():
            first = scored[broken].sort_values(PAIR).iloc[0]
            found = f"{int(broken.sum()):,} rows {rule}"
            example = f" (first: user {first[USER_ID]}, item {first[ITEM_ID]})"
            raise ArtifactError("artifacts/judged", found + example, fix="rerun `dvc repro judge`")


def _repeated(values: IntArray) -> Mask:
    """Which values occur before; all are sorted first, in a fraction of the memory of a hash table."""
    found: Mask = np.zeros(len(values), dtype=np.bool_)
    ordered = np.sort(values)
    if (ordered[1:] == ordered[:-1]).any():
        found = pd.Series(values).duplicated().to_numpy()
    return found


def _by_bucket(fused: pd.DataFrame, items: pd.DataFrame) -> dict[str, dict[str, int]]:
    """Kept rows by the bucket of their item and by source."""
    item, bucket = item_indices(fused[ITEM_ID], items, where="fused"), items["bucket"].to_numpy()
    counts = {
        source: np.bincount(item[(fused["source"] == source).to_numpy()], minlength=len(items))
        for source in (SOURCE_REAL, SOURCE_SYNTHETIC)
    }
    return {name: {source: int(n[bucket == name].sum()) for source, n in counts.items()} for name in BUCKETS}


def _log(counts: dict[str, Any], params: FuseParams) -> None:
    logger.info(
        "fuse %s: kept %s of %s real and %s of %s synthetic pairs (%.1f %%)%s",
        counts["arm"],
        *(f"{counts[key]:,}" for key in ("real_kept", "real_in", "synthetic_kept", "synthetic_in")),
        100 * counts["share_kept_synthetic"],
        f": {params.rule.in_words}" if counts["arm"] == "llm_i2i" else "",
    )
