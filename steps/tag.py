"""Stage tag: the catalogue with popularity groups, on training counts only."""

import pandas as pd

from llm_i2i.data.long_tail import long_tail_curve, tag_items
from llm_i2i.data.sources import read_items
from llm_i2i.files import staged
from llm_i2i.params import Params, load_params
from llm_i2i.schema import INTERACTIONS, ITEM_ID, ITEMS, read_table, write_frame, write_table
from steps import paths
from steps.stage import Outcome, stage_step


@stage_step
def tag() -> Outcome:
    """Count each item's training interactions and name its bucket."""
    params = load_params()
    items = _tagged(params)
    with staged(paths.ITEMS_FOLDER) as out:
        write_table(items, out / paths.ITEMS.name, ITEMS)
        write_frame(long_tail_curve(items), out / "popularity.csv")
    return Outcome((paths.ITEMS_FOLDER,), rows=len(items))


def _tagged(params: Params) -> pd.DataFrame:
    """The catalogue, counted by the engine that params name."""
    items = read_items(paths.DATA)
    if params.runtime.engine == "spark":
        from llm_i2i.spark import tag as on_spark  # noqa: PLC0415 - what extra `spark` installs
        from llm_i2i.spark.session import session  # noqa: PLC0415

        with session(params.spark) as spark:
            return on_spark.tag_items(spark, items, paths.TRAIN, params=params.tag, seed=params.seed)
    train = read_table(paths.TRAIN, {ITEM_ID: INTERACTIONS[ITEM_ID]}, encoded=True)
    return tag_items(items, train, params=params.tag, seed=params.seed)
