"""Stage tag: the catalogue with popularity groups, on training counts only."""

from llm_i2i.data.long_tail import long_tail_curve, tag_items
from llm_i2i.data.sources import read_items
from llm_i2i.files import staged
from llm_i2i.params import load_params
from llm_i2i.schema import INTERACTIONS, ITEM_ID, ITEMS, read_table, write_frame, write_table
from steps import paths
from steps.stage import Outcome, stage_step


@stage_step
def tag() -> Outcome:
    """Count each item's training interactions and name its bucket."""
    params = load_params()
    train = read_table(paths.TRAIN, {ITEM_ID: INTERACTIONS[ITEM_ID]}, encoded=True)
    items = tag_items(read_items(paths.DATA), train, params=params.tag, seed=params.seed)
    with staged(paths.ITEMS_FOLDER) as out:
        write_table(items, out / paths.ITEMS.name, ITEMS)
        write_frame(long_tail_curve(items), out / "popularity.csv")
    return Outcome((paths.ITEMS_FOLDER,), rows=len(items))
