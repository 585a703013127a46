"""Stage split: hold the last interactions out, by user or by time."""

from llm_i2i.data.sources import read_raw
from llm_i2i.data.split import split_interactions
from llm_i2i.files import staged, write_json
from llm_i2i.params import load_params
from llm_i2i.schema import HELD_OUT, INTERACTIONS, write_table
from steps import paths
from steps.stage import Outcome, stage_step


@stage_step
def split() -> Outcome:
    """Split the validated interactions into train, valid and test."""
    params = load_params()
    raw = read_raw(paths.DATA, encoded=True)
    result = split_interactions(raw.interactions, params=params.split, seed=params.seed, order=raw.order)
    with staged(paths.SPLIT) as out:
        write_table(result.train, out / paths.TRAIN.name, INTERACTIONS)
        write_table(result.valid, out / paths.VALID.name, INTERACTIONS)
        write_table(result.test, out / paths.TEST.name, INTERACTIONS)
        write_table(result.held_out, out / paths.HELD_OUT.name, HELD_OUT)
        write_json(result.manifest, out / "manifest.json")
    return Outcome((paths.SPLIT,), rows=len(result.train))
