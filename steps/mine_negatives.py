"""Stage mine_negatives: what the generator nearly gets right, for the discriminator to tell apart."""

from llm_i2i.files import remove, staged
from llm_i2i.llm import near_misses as core
from llm_i2i.llm.role import llm_setup
from llm_i2i.params import load_params
from llm_i2i.schema import INTERACTIONS, ITEMS, NEAR_MISSES, read_table, write_table
from steps import paths
from steps.stage import Outcome, stage_step


@stage_step
def mine_negatives() -> Outcome:
    """Write the generator's near misses, none where the discriminator does not learn from them."""
    params = load_params()
    items = read_table(paths.ITEMS, ITEMS)
    checkpoints = paths.CHECKPOINTS / "mine_negatives"
    rows, facts = core.mine_negatives(
        train=read_table(paths.TRAIN, INTERACTIONS),
        setup=llm_setup(params, items, names=paths.IDENTIFIERS, base_model=paths.BASE_MODEL),
        adapter=paths.GENERATOR,
        params=params.mine_negatives,
        discriminator=params.train_discriminator,
        checkpoints=checkpoints,
    )
    with staged(paths.NEAR_MISSES_FOLDER) as out:
        write_table(rows, out / paths.NEAR_MISSES.name, NEAR_MISSES)
    remove(checkpoints)
    inputs = (paths.TRAIN, paths.ITEMS_FOLDER, paths.IDENTIFIERS, paths.BASE_MODEL, paths.GENERATOR)
    return Outcome(inputs=inputs, outputs=(paths.NEAR_MISSES_FOLDER,), rows=len(rows), runtime=facts)
