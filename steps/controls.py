"""Stage controls: one control's synthetic pairs, as many a user as the generator wrote."""

from llm_i2i.evaluation.controls import control_rows
from llm_i2i.params import load_params
from llm_i2i.schema import INTERACTIONS, ITEMS, SYNTHETIC, read_table, write_table
from steps import paths
from steps.files import staged
from steps.stage import Outcome, stage_step


@stage_step
def controls(name: str) -> Outcome:
    """Write the pairs of a cheap recommender.

    Args:
        name: One of controls.names.
    """
    rows = control_rows(
        name,
        train=read_table(paths.TRAIN, INTERACTIONS),
        synthetic=read_table(paths.SYNTHETIC, SYNTHETIC),
        items=read_table(paths.ITEMS, ITEMS),
        seed=load_params().seed,
    )
    table = paths.CONTROLS / f"{name}.parquet"
    with staged(table) as out:
        write_table(rows, out, SYNTHETIC)
    inputs = (paths.TRAIN, paths.SYNTHETIC_FOLDER, paths.ITEMS_FOLDER)
    return Outcome(inputs=inputs, outputs=(table,), rows=len(rows))
