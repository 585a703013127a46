"""Stage train_generator: QLoRA-tune the writer of synthetic interactions."""

from llm_i2i.files import staged
from llm_i2i.llm import generator as core
from llm_i2i.params import load_params
from llm_i2i.schema import HELD_OUT, INTERACTIONS, read_table
from steps import paths
from steps.llm import read_setup
from steps.stage import Outcome, stage_step


@stage_step
def train_generator() -> Outcome:
    """Train the generator's adapter; a killed training resumes from its last checkpoint."""
    params = load_params()
    with staged(paths.GENERATOR) as out:
        facts = core.train_generator(
            train=read_table(paths.TRAIN, INTERACTIONS),
            held_out=read_table(paths.HELD_OUT, HELD_OUT),
            setup=read_setup(params),
            params=params.train_generator,
            out=out,
            checkpoints=paths.checkpoints("train_generator"),
        )
    return Outcome((paths.GENERATOR,), runtime=facts)
