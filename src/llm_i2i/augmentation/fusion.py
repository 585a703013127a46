"""Fuse real and synthetic interactions into what the I2I models train on, one arm at a time."""

import logging
from collections import Counter
from typing import Any, Final

import numpy as np
import pandas as pd

from llm_i2i.augmentation.selection import PAIR, by_confidence, choose, confidence_of
from llm_i2i.catalogue import without_rows
from llm_i2i.errors import ArtifactError, GenerationError
from llm_i2i.params import Arm, FuseParams
from llm_i2i.schema import BUCKETS, CONTROLS, FUSED, ITEM_ID, JUDGED, SOURCE_REAL, SOURCE_SYNTHETIC, USER_ID

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

    real: every real row. llm_i2i: real rows (without those that score below `real_threshold`, if
    `filter_real`) and the synthetic rows that `params.rule` keeps. no_generator: the real rows of llm_i2i alone.
    synthetic_only: its synthetic rows alone. no_discriminator: every real row and what the rule keeps by the
    generator's confidence: under a threshold on p_yes, which it then has not, each user's first rows up to the cap.
    random, popularity, item_knn: every real row and, per user, the control's first rows, as many as arm
    `control_volume` keeps.
    NAME_filtered: the real rows of llm_i2i and, per user, the control's rows of the highest confidence, as
    many as llm_i2i keeps. So a control differs from its LLM arm in nothing but which items are added.

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
    _check_scored(scored, train, items)
    real = _visible(train, valid, params)
    scored = scored.assign(confidence=confidence_of(scored, params.rule))
    kept_real = real.iloc[:0] if arm in _WITHOUT_REAL else real
    if arm in _FILTERED_REAL and params.filter_real:
        kept_real = _filter_real(real, scored, params.real_threshold)
    offered = kept_synthetic = scored.iloc[:0]
    if arm not in _WITHOUT_SYNTHETIC:
        # Proposing a user's valid item is right, not wrong; where valid rows are real ones it says nothing new.
        generated = scored[scored["source"] == SOURCE_SYNTHETIC]
        offered = without_rows(generated, real)
        volume = params.control_volume if arm in CONTROLS else arm
        kept_synthetic = _choose_synthetic(offered, real, items, volume, params)
        if control_of(arm):
            rows = _control_rows(arm, control, scored)
            offered = without_rows(rows, real)
            kept_synthetic = _same_volume(offered, kept_synthetic)
    parts = [kept_real.assign(source=SOURCE_REAL), kept_synthetic[PAIR].assign(source=SOURCE_SYNTHETIC)]
    fused = pd.concat(parts).assign(weight=1.0).astype(FUSED).sort_values(PAIR, ignore_index=True)
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
        return train[PAIR]
    return pd.concat([train[PAIR], valid[PAIR]], ignore_index=True)


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
            chosen = synthetic.sort_values([USER_ID, "rank", ITEM_ID])
            return chosen.groupby(USER_ID, sort=False).head(rule.max_synthetic_per_user)
        rule = rule.model_copy(update={"confidence": "logprob"})
        synthetic = synthetic.assign(confidence=confidence_of(synthetic, rule))
    return choose(synthetic, real=real, items=items, rule=rule, arm=arm)


def _control_rows(arm: Arm, control: pd.DataFrame | None, scored: pd.DataFrame) -> pd.DataFrame:
    """The rows of an arm's control, the first to be kept first."""
    name = control_of(arm)
    if arm != name:
        rows = scored[scored["source"] == name]
        if rows.empty:
            found, fix = f"holds no row of source {name}", f"add {name} to `score.sources` in params.yaml"
            raise ArtifactError("artifacts/scored", found, f"what arm {arm} trains on", fix)
        return by_confidence(rows)
    if control is None:
        raise ArtifactError(f"controls/{name}.parquet", "was not given", f"what arm {arm} trains on")
    return control.sort_values([USER_ID, "rank", ITEM_ID])


def _same_volume(rows: pd.DataFrame, chosen: pd.DataFrame) -> pd.DataFrame:
    """The first rows of each user, as many as `chosen` has of that user."""
    volume = rows[USER_ID].map(chosen[USER_ID].value_counts()).fillna(0).to_numpy()
    return rows[rows.groupby(USER_ID).cumcount().to_numpy() < volume]


def _filter_real(real: pd.DataFrame, scored: pd.DataFrame, threshold: float) -> pd.DataFrame:
    """Drop the real rows that were scored below the threshold; rows without a score stay."""
    doubtful = scored[(scored["source"] == SOURCE_REAL) & (scored["p_yes"].to_numpy() < np.float32(threshold))]
    kept = without_rows(real, doubtful)
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
    in_train = pd.MultiIndex.from_frame(scored[PAIR]).isin(pd.MultiIndex.from_frame(train[PAIR]))
    rules = {
        "have a p_yes outside [0, 1]": ~((p_yes >= 0) & (p_yes <= 1)),
        "have an unknown source": ~synthetic & (scored["source"] != SOURCE_REAL).to_numpy(),
        "occur twice": scored.duplicated([*PAIR, "source"]).to_numpy(),
        "have an item outside the catalogue": ~scored[ITEM_ID].isin(items[ITEM_ID]).to_numpy(),
        "have a user outside train": ~scored[USER_ID].isin(train[USER_ID]).to_numpy(),
        "are synthetic but equal a real row of train": synthetic & in_train,
        "are called real but are not in train": ~synthetic & ~in_train,
    }
    for rule, broken in rules.items():
        if broken.any():
            first = scored[broken].sort_values(PAIR).iloc[0]
            found = f"{int(broken.sum()):,} rows {rule}"
            example = f" (first: user {first[USER_ID]}, item {first[ITEM_ID]})"
            raise ArtifactError("artifacts/judged", found + example, fix="rerun `dvc repro judge`")


def _by_bucket(fused: pd.DataFrame, items: pd.DataFrame) -> dict[str, dict[str, int]]:
    """Kept rows by the bucket of their item and by source."""
    bucket = fused[ITEM_ID].map(items.set_index(ITEM_ID)["bucket"])
    counts = Counter(zip(bucket, fused["source"], strict=True))
    sources = (SOURCE_REAL, SOURCE_SYNTHETIC)
    return {name: {source: counts[name, source] for source in sources} for name in BUCKETS}


def _log(counts: dict[str, Any], params: FuseParams) -> None:
    logger.info(
        "fuse %s: kept %s of %s real and %s of %s synthetic pairs (%.1f %%)%s",
        counts["arm"],
        *(f"{counts[key]:,}" for key in ("real_kept", "real_in", "synthetic_kept", "synthetic_in")),
        100 * counts["share_kept_synthetic"],
        f": {params.rule.in_words}" if counts["arm"] == "llm_i2i" else "",
    )
