"""`python -m pipelines tune MODEL`: search on valid, write what is found into profiles/models.yaml."""

from typing import Any

from llm_i2i.evaluation import tuning
from llm_i2i.files import write_text
from llm_i2i.i2i.train import options_of
from llm_i2i.params import Params, load_params
from llm_i2i.params.reading import overlay
from llm_i2i.schema import INTERACTIONS, ITEMS, read_table, write_frame
from pipelines import profile
from steps import paths


def run(model: str, *, trials: int, objective: str) -> dict[str, Any]:
    """Tune a model on the split that is there; `train_i2i.MODEL_tuned` then holds what was found.

    Options of that section that are not searched (`tuning.GRIDS`) keep their values.

    Args:
        model: One of `tuning.GRIDS`.
        trials: Settings to measure.
        objective: One of `tuning.OBJECTIVES`.

    Returns:
        The values written.
    """
    params = load_params()
    section = getattr(params.train_i2i, f"{model}_tuned", None)
    fixed = section.model_dump(exclude=set(tuning.GRIDS[model])) if section and model in tuning.GRIDS else {}
    found = tuning.tune(
        model,
        train=read_table(paths.TRAIN, INTERACTIONS),
        valid=read_table(paths.VALID, INTERACTIONS),
        items=read_table(paths.ITEMS, ITEMS),
        trials=trials,
        objective=objective,
        seed=params.seed,
        plain=options_of(model, params.train_i2i)[1] if section else {},
        fixed=fixed,
    )
    kinds = type(section).model_fields
    # In the file a whole number stays 1.0 where the option is no count, and a switch is true or false.
    values = {name: (kinds[name].annotation or float)(value) for name, value in found.options.items()}
    text = profile.MODELS.read_text(encoding="utf-8")
    changed = profile.with_overlay(text, {"train_i2i": {f"{model}_tuned": values}})
    table = paths.TUNING / f"{model}.csv"
    checked = overlay(params.model_dump(by_alias=True), {"train_i2i": {f"{model}_tuned": values}})
    Params.model_validate(checked)
    write_frame(found.trials.assign(objective=objective), table)
    write_text(changed, profile.MODELS)
    return values
