"""Stage controls: one control's synthetic pairs, as many per user as the generator wrote."""

from llm_i2i.augmentation.controls import control_rows
from llm_i2i.catalogue import read_text_vectors
from llm_i2i.files import staged
from llm_i2i.params import load_params
from llm_i2i.schema import INTERACTIONS, ITEMS, SYNTHETIC, read_table, write_table
from steps import paths
from steps.stage import Outcome, stage_step


@stage_step
def controls(name: str) -> Outcome:
    """Write the pairs of a cheap recommender; a killed training of `compact` resumes where it stopped.

    Args:
        name: One of controls.names.
    """
    params = load_params()
    train, items = read_table(paths.TRAIN, INTERACTIONS), read_table(paths.ITEMS, ITEMS)
    if name == "compact":
        # torch and transformers, which the cheap ones do without
        from llm_i2i.augmentation.compact_control import compact_rows  # noqa: PLC0415

        rows = compact_rows(
            train=train,
            items=items,
            text=read_text_vectors(paths.TEXT_VECTORS, items),
            params=params,
            work=paths.checkpoints("controls", name=name),
        )
    else:
        synthetic = read_table(paths.SYNTHETIC, SYNTHETIC)
        rows = control_rows(name, train=train, synthetic=synthetic, items=items, seed=params.seed)
    table = paths.PROPOSED / f"{name}.parquet"
    with staged(table) as out:
        write_table(rows, out, SYNTHETIC)
    return Outcome((table,), rows=len(rows))
