"""Stage split: hold the last interactions out, by user or by time."""

from llm_i2i.data.sources import read_raw
from llm_i2i.data.split import split_interactions
from llm_i2i.files import staged, write_json
from llm_i2i.params import load_params
from llm_i2i.schema import INTERACTIONS, write_table
from steps.paths import DATA, SPLIT
from steps.stage import Outcome, stage_step


@stage_step
def split() -> Outcome:
    """Split the validated interactions into train, valid and test."""
    params = load_params()
    raw = read_raw(DATA)
    result = split_interactions(raw.interactions, params=params.split, seed=params.seed, order=raw.order)
    with staged(SPLIT) as out:
        write_table(result.train, out / "train.parquet", INTERACTIONS)
        write_table(result.valid, out / "valid.parquet", INTERACTIONS)
        write_table(result.test, out / "test.parquet", INTERACTIONS)
        write_json(result.manifest, out / "manifest.json")
    return Outcome((SPLIT,), rows=len(result.train))
