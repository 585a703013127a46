"""Stage identify: name every item for the LLM."""

from llm_i2i.catalogue import read_text_vectors
from llm_i2i.data.identifiers import identify_items
from llm_i2i.files import staged, write_json
from llm_i2i.params import load_params
from llm_i2i.schema import IDENTIFIERS, INTERACTIONS, ITEM_ID, ITEMS, read_table, write_table
from steps import paths
from steps.stage import Outcome, stage_step


@stage_step
def identify() -> Outcome:
    """Write one identifier per item and the tokens that are new to the LLM."""
    params = load_params()
    items = read_table(paths.ITEMS, ITEMS)
    train = read_table(paths.TRAIN, INTERACTIONS)
    names, new_tokens = identify_items(
        items, train, text=read_text_vectors(paths.TEXT_VECTORS, items), params=params.identify, seed=params.seed
    )
    with staged(paths.IDENTIFIERS) as out:
        write_table(items[[ITEM_ID]].assign(identifier=names), out / "identifiers.parquet", IDENTIFIERS)
        write_json(new_tokens, out / "tokens.json")
    return Outcome((paths.IDENTIFIERS,), rows=len(items))
