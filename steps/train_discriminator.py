"""Stage train_discriminator: QLoRA-tune the judge of pairs of user and item."""

from llm_i2i.files import staged
from llm_i2i.llm import discriminator as core
from llm_i2i.params import load_params
from llm_i2i.schema import HELD_OUT, INTERACTIONS, read_table
from steps import paths
from steps.llm import read_setup
from steps.stage import Outcome, stage_step


@stage_step
def train_discriminator() -> Outcome:
    """Train the discriminator's adapter; a killed training resumes from its last checkpoint."""
    params = load_params()
    with staged(paths.DISCRIMINATOR) as out:
        facts = core.train_discriminator(
            train=read_table(paths.TRAIN, INTERACTIONS),
            held_out=read_table(paths.HELD_OUT, HELD_OUT),
            setup=read_setup(params),
            params=params.train_discriminator,
            out=out,
            checkpoints=paths.checkpoints("train_discriminator"),
        )
    return Outcome((paths.DISCRIMINATOR,), runtime=facts)
