"""Stage validate: check the raw tables."""

from llm_i2i.data.expectations import raise_on_errors, validate_tables
from llm_i2i.data.sources import read_raw
from llm_i2i.files import staged, write_json
from llm_i2i.params import load_params
from steps.paths import DATA, DATA_DOCS, VALIDATION
from steps.stage import Outcome, stage_step


@stage_step
def validate() -> Outcome:
    """Run every expectation on data/; stop on a broken one after its Data Docs page is written."""
    params = load_params()
    raw = read_raw(DATA, encoded=True)
    DATA_DOCS.mkdir(parents=True, exist_ok=True)
    result = validate_tables(raw, params=params.validate_, tail_max_count=params.tag.tail_max_count, docs_dir=DATA_DOCS)
    raise_on_errors(result)
    with staged(VALIDATION) as out:
        write_json(result, out / "validation.json")
    return Outcome((VALIDATION,), rows=len(raw.interactions))
