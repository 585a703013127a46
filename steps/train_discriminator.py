"""Stage train_discriminator: QLoRA-tune the judge of pairs of user and item."""

from llm_i2i.files import is_first_process, remove, staged
from llm_i2i.llm import discriminator as core
from llm_i2i.llm.role import llm_setup
from llm_i2i.params import load_params
from llm_i2i.schema import INTERACTIONS, ITEMS, NEAR_MISSES, read_table
from steps import paths
from steps.stage import Outcome, stage_step


@stage_step
def train_discriminator() -> Outcome:
    """Train the discriminator's adapter; a killed training goes on from its last checkpoint."""
    params = load_params()
    items = read_table(paths.ITEMS, ITEMS)
    checkpoints = paths.CHECKPOINTS / "train_discriminator"
    with staged(paths.DISCRIMINATOR) as out:
        facts = core.train_discriminator(
            train=read_table(paths.TRAIN, INTERACTIONS),
            setup=llm_setup(params, items, names=paths.IDENTIFIERS, base_model=paths.BASE_MODEL),
            params=params.train_discriminator,
            out=out,
            checkpoints=checkpoints,
            near_misses=read_table(paths.NEAR_MISSES, NEAR_MISSES),
        )
    if is_first_process():
        remove(checkpoints)
    inputs = (
        paths.TRAIN,
        paths.ITEMS_FOLDER,
        paths.IDENTIFIERS,
        paths.BASE_MODEL,
        paths.NEAR_MISSES_FOLDER,
    )
    return Outcome(inputs=inputs, outputs=(paths.DISCRIMINATOR,), runtime=facts)
