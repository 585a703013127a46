"""Stage train_discriminator: QLoRA-tune the judge of pairs of user and item."""

from llm_i2i.files import staged
from llm_i2i.llm import discriminator as core
from llm_i2i.llm.role import llm_setup
from llm_i2i.params import load_params
from llm_i2i.schema import INTERACTIONS, ITEMS, NEAR_MISSES, read_table
from steps import paths
from steps.stage import Outcome, stage_step


@stage_step
def train_discriminator() -> Outcome:
    """Train the discriminator's adapter; a killed training resumes from its last checkpoint."""
    params = load_params()
    items = read_table(paths.ITEMS, ITEMS)
    with staged(paths.DISCRIMINATOR) as out:
        facts = core.train_discriminator(
            train=read_table(paths.TRAIN, INTERACTIONS),
            setup=llm_setup(params, items, names=paths.IDENTIFIERS, base_model=paths.BASE_MODEL),
            params=params.train_discriminator,
            out=out,
            checkpoints=paths.checkpoints("train_discriminator"),
            near_misses=read_table(paths.NEAR_MISSES, NEAR_MISSES),
        )
    return Outcome((paths.DISCRIMINATOR,), runtime=facts)
