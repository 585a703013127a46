"""Stage judge: how likely a user takes what the generator proposed."""

from llm_i2i.augmentation.judge import Known
from llm_i2i.augmentation.judge import judge as core
from llm_i2i.catalogue import read_text_vectors
from llm_i2i.files import staged, write_json
from llm_i2i.params import load_params
from llm_i2i.schema import GENERATOR, HELD_OUT, INTERACTIONS, ITEMS, JUDGED, SCORED, SYNTHETIC, read_table, write_table
from steps import paths
from steps.stage import Outcome, stage_step


@stage_step
def judge() -> Outcome:
    """Write p_yes of the generator's pairs as section judge defines it."""
    items = read_table(paths.ITEMS, ITEMS)
    rows, facts = core(
        scored=read_table(paths.SCORED / f"{GENERATOR}.parquet", SCORED),
        proposed=read_table(paths.SYNTHETIC, SYNTHETIC),
        held_out=read_table(paths.HELD_OUT, HELD_OUT),
        known=Known(read_table(paths.TRAIN, INTERACTIONS), items, read_text_vectors(paths.TEXT_VECTORS, items)),
        params=load_params().judge,
    )
    with staged(paths.JUDGED) as out:
        write_table(rows, out / paths.PAIRS.name, JUDGED)
        write_json(facts, out / "judge.json")
    return Outcome((paths.JUDGED,), rows=len(rows))
