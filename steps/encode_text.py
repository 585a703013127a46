"""Stage encode_text: what the items' words mean, as vectors."""

from llm_i2i.files import staged, write_array, write_json
from llm_i2i.llm.text_vectors import encode_items
from llm_i2i.params import load_params
from llm_i2i.schema import ITEMS, read_table
from steps import paths
from steps.stage import Outcome, stage_step


@stage_step
def encode_text() -> Outcome:
    """Write one vector per item, by the catalogue's own words or by a pretrained encoder."""
    params = load_params()
    items = read_table(paths.ITEMS, ITEMS)
    vectors, facts = encode_items(items, params.encode_text, runtime=params.runtime, downloads=paths.DOWNLOADS)
    with staged(paths.TEXT) as out:
        write_array(vectors, out / paths.TEXT_VECTORS.name)
        write_json(facts, out / "encoder.json")
    return Outcome((paths.TEXT,), rows=len(items))
