"""Stage mine_negatives: the generator's plausible but wrong guesses, for the discriminator to learn from."""

import pandas as pd

from llm_i2i.files import staged
from llm_i2i.params import OF_THE_GENERATOR, load_params
from llm_i2i.schema import INTERACTIONS, ITEMS, NEAR_MISSES, read_table, write_table
from steps import paths
from steps.stage import Outcome, stage_step


@stage_step
def mine_negatives() -> Outcome:
    """Write the generator's near misses; where the discriminator does not learn from them, an empty table at once."""
    params = load_params()
    rows, facts = pd.DataFrame(columns=list(NEAR_MISSES)), {}
    if params.train_discriminator.negatives in OF_THE_GENERATOR:
        # torch and transformers, which an empty table does without
        from llm_i2i.llm import near_misses as core  # noqa: PLC0415
        from llm_i2i.llm.role import llm_setup  # noqa: PLC0415

        items = read_table(paths.ITEMS, ITEMS)
        rows, facts = core.mine_negatives(
            train=read_table(paths.TRAIN, INTERACTIONS),
            setup=llm_setup(params, items, names=paths.IDENTIFIERS, base_model=paths.BASE_MODEL),
            adapter=paths.GENERATOR,
            params=params.mine_negatives,
            discriminator=params.train_discriminator,
            checkpoints=paths.checkpoints("mine_negatives"),
        )
    with staged(paths.NEAR_MISSES_FOLDER) as out:
        write_table(rows.astype(NEAR_MISSES), out / paths.NEAR_MISSES.name, NEAR_MISSES)
    return Outcome((paths.NEAR_MISSES_FOLDER,), rows=len(rows), runtime=facts)
