"""Stage fuse: one arm's training data, real and synthetic."""

import numpy as np
import pandas as pd

from llm_i2i.augmentation import fusion
from llm_i2i.files import staged, write_json
from llm_i2i.params import load_params
from llm_i2i.schema import FUSED, INTERACTIONS, ITEMS, JUDGED, SCORED, SYNTHETIC, read_table, write_table
from steps import paths
from steps.stage import Outcome, stage_step


@stage_step
def fuse(arm: str) -> Outcome:
    """Filter by confidence and join what the arm trains on.

    Args:
        arm: One of fuse.arms.
    """
    control, params = fusion.control_of(arm), load_params().fuse
    scored = [read_table(paths.PAIRS, JUDGED)]
    if control and arm != control:
        scored.append(read_table(paths.SCORED / f"{control}.parquet", SCORED).assign(logprob=np.float32(np.nan)))
    fused, kept = fusion.fuse(
        arm=arm,
        train=read_table(paths.TRAIN, INTERACTIONS),
        valid=read_table(paths.VALID, INTERACTIONS),
        scored=pd.concat(scored, ignore_index=True),
        items=read_table(paths.ITEMS, ITEMS),
        params=params,
        control=read_table(paths.PROPOSED / f"{control}.parquet", SYNTHETIC) if control else None,
    )
    table, counts = paths.FUSED / f"{arm}.parquet", paths.FUSED / f"{arm}.json"
    with staged(table) as table_out, staged(counts) as counts_out:
        write_table(fused, table_out, FUSED)
        write_json(kept, counts_out)
    return Outcome((table, counts), rows=len(fused))
