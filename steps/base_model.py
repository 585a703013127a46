"""Stage base_model: obtain the base LLM."""

from llm_i2i.files import staged
from llm_i2i.llm.engine.base_model import prepare_base_model
from llm_i2i.llm.readiness import check_base_model
from llm_i2i.params import load_params
from steps.paths import BASE_MODEL, DOWNLOADS
from steps.stage import Outcome, stage_step


@stage_step
def base_model() -> Outcome:
    """Obtain, check and, where needed, convert the base model."""
    params = load_params()
    DOWNLOADS.mkdir(exist_ok=True)
    with staged(BASE_MODEL) as out:
        prepare_base_model(params.base_model, seed=params.seed, out=out, downloads=DOWNLOADS)
        templates = (params.train_generator.template, params.train_discriminator.template)
        check_base_model(out, generator=templates[0], discriminator=templates[1])
    return Outcome((BASE_MODEL,))
