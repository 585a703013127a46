"""Stage fuse: one arm's training data, real and synthetic."""

import logging
from typing import Any

import numpy as np
import pandas as pd

from llm_i2i.augmentation import fusion
from llm_i2i.files import staged, write_json
from llm_i2i.params import FuseParams, Params, load_params
from llm_i2i.schema import (
    FUSED,
    INTERACTIONS,
    ITEM_ID,
    ITEMS,
    JUDGED,
    SCORED,
    SOURCE_REAL,
    SYNTHETIC,
    USER_ID,
    read_table,
    stack,
    write_table,
)
from steps import paths
from steps.stage import Outcome, stage_step

logger = logging.getLogger(__name__)
Fused = tuple[pd.DataFrame, dict[str, Any]]
# A control's rank is all that counts of it beside the pair: hashes of prompts would fill the memory.
CONTROL = {name: SYNTHETIC[name] for name in (USER_ID, ITEM_ID, "rank")}
PAIRS = {name: INTERACTIONS[name] for name in (USER_ID, ITEM_ID)}


@stage_step
def fuse(arm: str) -> Outcome:
    """Filter by confidence and join what the arm trains on.

    Args:
        arm: One of fuse.arms.
    """
    params = load_params()
    fused, kept = _on_spark(arm, params) or _here(arm, params.fuse)
    table, counts = paths.FUSED / f"{arm}.parquet", paths.FUSED / f"{arm}.json"
    with staged(table) as table_out, staged(counts) as counts_out:
        write_table(fused, table_out, FUSED)
        write_json(kept, counts_out)
    return Outcome((table, counts), rows=len(fused))


def _here(arm: str, params: FuseParams) -> Fused:
    control = fusion.control_of(arm)
    return fusion.fuse(
        arm=arm,
        train=read_table(paths.TRAIN, PAIRS, encoded=True),
        valid=read_table(paths.VALID, PAIRS, encoded=True),
        scored=_scored(arm, control),
        items=read_table(paths.ITEMS, ITEMS),
        params=params,
        control=read_table(paths.PROPOSED / f"{control}.parquet", CONTROL, encoded=True) if control else None,
    )


def _on_spark(arm: str, params: Params) -> Fused | None:
    """The arm by Spark, if it is the engine and no user's pairs compete with another's."""
    if params.runtime.engine != "spark":
        return None
    from llm_i2i.spark import fuse as on_spark  # noqa: PLC0415 - what extra `spark` installs
    from llm_i2i.spark.session import session  # noqa: PLC0415

    control = fusion.control_of(arm)
    folder = paths.PROPOSED if arm == control else paths.SCORED
    sources = on_spark.Sources(paths.TRAIN, paths.VALID, paths.PAIRS, folder / f"{control}.parquet")
    items, partition_mb = read_table(paths.ITEMS, ITEMS), params.spark.partition_mb
    with session(params.spark) as spark:
        found = on_spark.fuse(spark, sources, arm=arm, items=items, params=params.fuse, partition_mb=partition_mb)
    if found is None:
        logger.warning("fuse: Spark leaves arm %s to this machine: users' pairs compete, or a row is wrong", arm)
    return found


def _scored(arm: str, control: str) -> pd.DataFrame:
    """The pairs that an arm chooses from; a function, so that no name keeps them once `fuse` needs them no longer."""
    if arm == SOURCE_REAL:
        return pd.DataFrame(columns=list(JUDGED)).astype(JUDGED)
    scored = read_table(paths.PAIRS, JUDGED, encoded=True)
    if control and arm != control:
        of_control = read_table(paths.SCORED / f"{control}.parquet", {**SCORED, "rank": "int32"}, encoded=True)
        scored = stack(scored, of_control.assign(logprob=np.float32(np.nan)))
    return scored
