"""Stage train_generator: QLoRA-tune the writer of synthetic interactions."""

from llm_i2i.files import staged
from llm_i2i.llm import generator as core
from llm_i2i.llm.role import llm_setup
from llm_i2i.params import load_params
from llm_i2i.schema import INTERACTIONS, ITEMS, read_table
from steps import paths
from steps.stage import Outcome, stage_step


@stage_step
def train_generator() -> Outcome:
    """Train the generator's adapter; a killed training resumes from its last checkpoint."""
    params = load_params()
    items = read_table(paths.ITEMS, ITEMS)
    with staged(paths.GENERATOR) as out:
        facts = core.train_generator(
            train=read_table(paths.TRAIN, INTERACTIONS),
            setup=llm_setup(params, items, names=paths.IDENTIFIERS, base_model=paths.BASE_MODEL),
            params=params.train_generator,
            out=out,
            checkpoints=paths.checkpoints("train_generator"),
        )
    return Outcome((paths.GENERATOR,), runtime=facts)
