"""Stage fuse: one arm's training data, real and synthetic."""

import numpy as np
import pandas as pd

from llm_i2i.augmentation import fusion
from llm_i2i.files import staged, write_json
from llm_i2i.params import load_params
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

# A control's rank is all that counts of it beside the pair: hashes of prompts would fill the memory.
CONTROL = {name: SYNTHETIC[name] for name in (USER_ID, ITEM_ID, "rank")}
PAIRS = {name: INTERACTIONS[name] for name in (USER_ID, ITEM_ID)}


@stage_step
def fuse(arm: str) -> Outcome:
    """Filter by confidence and join what the arm trains on.

    Args:
        arm: One of fuse.arms.
    """
    control, params = fusion.control_of(arm), load_params().fuse
    fused, kept = fusion.fuse(
        arm=arm,
        train=read_table(paths.TRAIN, PAIRS, encoded=True),
        valid=read_table(paths.VALID, PAIRS, encoded=True),
        scored=_scored(arm, control),
        items=read_table(paths.ITEMS, ITEMS),
        params=params,
        control=read_table(paths.PROPOSED / f"{control}.parquet", CONTROL, encoded=True) if control else None,
    )
    table, counts = paths.FUSED / f"{arm}.parquet", paths.FUSED / f"{arm}.json"
    with staged(table) as table_out, staged(counts) as counts_out:
        write_table(fused, table_out, FUSED)
        write_json(kept, counts_out)
    return Outcome((table, counts), rows=len(fused))


def _scored(arm: str, control: str) -> pd.DataFrame:
    """The pairs that an arm chooses from; a function, so that no name keeps them once `fuse` needs them no longer."""
    if arm == SOURCE_REAL:
        return pd.DataFrame(columns=list(JUDGED)).astype(JUDGED)
    scored = read_table(paths.PAIRS, JUDGED, encoded=True)
    if control and arm != control:
        of_control = read_table(paths.SCORED / f"{control}.parquet", {**SCORED, "rank": "int32"}, encoded=True)
        scored = stack(scored, of_control.assign(logprob=np.float32(np.nan)))
    return scored
