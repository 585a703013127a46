"""Stage score: ask the discriminator about every synthetic and many real pairs."""

from llm_i2i.files import remove, staged, write_json
from llm_i2i.llm import scoring as core
from llm_i2i.llm.role import llm_setup
from llm_i2i.params import load_params
from llm_i2i.schema import INTERACTIONS, ITEMS, SCORED, SYNTHETIC, read_table, write_table
from steps import paths
from steps.stage import Outcome, stage_step


@stage_step
def score() -> Outcome:
    """Compute the calibrated probability of Yes of each row; a killed run goes on after its last shard."""
    params = load_params()
    items = read_table(paths.ITEMS, ITEMS)
    checkpoints = paths.CHECKPOINTS / "score"
    rows, calibration, facts = core.score(
        train=read_table(paths.TRAIN, INTERACTIONS),
        synthetic=read_table(paths.SYNTHETIC, SYNTHETIC),
        setup=llm_setup(params, items, names=paths.IDENTIFIERS, base_model=paths.BASE_MODEL),
        adapter=paths.DISCRIMINATOR,
        params=params.score,
        checkpoints=checkpoints,
        controls={
            name: read_table(paths.CONTROLS / f"{name}.parquet", SYNTHETIC) for name in params.score.controls
        },
    )
    with staged(paths.SCORED_FOLDER) as out:
        write_table(rows, out / paths.SCORED.name, SCORED)
        write_json(calibration, out / "calibration.json")
    remove(checkpoints)
    inputs = (
        paths.TRAIN,
        paths.ITEMS_FOLDER,
        paths.IDENTIFIERS,
        paths.BASE_MODEL,
        paths.DISCRIMINATOR,
        paths.SYNTHETIC_FOLDER,
        paths.CONTROLS,
    )
    return Outcome(inputs=inputs, outputs=(paths.SCORED_FOLDER,), rows=len(rows), runtime=facts)
