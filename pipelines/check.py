"""`python -m pipelines check`: parameters that are valid one by one and make no sense together."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from llm_i2i.errors import ParamsError
from llm_i2i.params import LlmTraining, Params, load_params
from llm_i2i.params.reading import read_written
from llm_i2i.schema import GENERATOR
from pipelines import profile
from pipelines.mend import mend

logger = logging.getLogger(__name__)

PAGED = "paged_adamw_8bit"
# By role and whether the backbone is compact, which knows no words but those of its own: the template to advise, and
# how the names of those that fit begin.
FITTING = {
    ("train_generator", True): ("generator_bare_v1", ("generator_bare_",)),
    ("train_generator", False): ("generator_v1", ("generator_",)),
    ("train_discriminator", True): ("discriminator_compact_v1", ("discriminator_compact_",)),
    ("train_discriminator", False): ("discriminator_v1", ("discriminator_v", "discriminator_bare_")),
}
# Of ten proposals at most one or two are what a user takes next.
UNLIKELY = 0.3


@dataclass(frozen=True)
class Finding:
    """A combination that makes no sense.

    Attributes:
        key: The key to look at.
        found: What it does together with others.
        fix: What to do about it.
        stops: Whether a run would fail or train on nonsense; else it only does nothing or is not worth reading.
    """

    key: str
    found: str
    fix: str
    stops: bool = False

    def __str__(self) -> str:
        return f"{self.key}: {self.found}; {self.fix}"


def check() -> None:
    """Mend what a killed dvc left, check params.yaml and its profile, and warn of what has no effect.

    Raises:
        ParamsError: A rule is broken, or a combination would fail.
    """
    mend()
    params = load_params()
    findings = list(find(params, read_written()))
    for finding in findings:
        if not finding.stops:
            logger.warning("check: %s", finding)
    stopping = [f"\n  {finding}" for finding in findings if finding.stops]
    if stopping:
        raise ParamsError(str(profile.PARAMS), f"{len(stopping)} combination(s) that cannot work" + "".join(stopping))
    differing = profile.differences()
    if differing:
        logger.info("check: params.yaml differs from profile %s in %s", params.profile, ", ".join(differing))


def find(params: Params, raw: dict[str, Any]) -> Iterator[Finding]:
    """Every combination that makes no sense.

    Args:
        params: What runs.
        raw: params.yaml as a mapping: what the user wrote.
    """
    yield from _about_models(params)
    yield from _about_arms(params)
    yield from _about_selection(params, raw)
    run = (params.gate.model in params.train_i2i.models, params.gate.arm in params.fuse.arms)
    for key, value, runs in (("model", params.gate.model, run[0]), ("arm", params.gate.arm, run[1])):
        if not runs:
            lists = "train_i2i.models" if key == "model" else "fuse.arms"
            yield Finding(f"gate.{key}", f"{value} is not run", f"add it to {lists}, or name one of those")


def _about_models(params: Params) -> Iterator[Finding]:
    is_compact = params.base_model.source == "compact"
    for name in ("train_generator", "train_discriminator"):
        training: LlmTraining = getattr(params, name)
        advised, fitting = FITTING[name, is_compact]
        if not training.template.startswith(fitting):
            found = f"{training.template} does not fit base_model.source {params.base_model.source}"
            yield Finding(f"{name}.template", found, f"set it to {advised}", stops=True)
        if training.optimizer == PAGED and (params.runtime.device == "cpu" or not _has_cuda()):
            yield Finding(f"{name}.optimizer", f"{PAGED} needs CUDA, which is not there", "set it to adamw", stops=True)
    if params.base_model.source == "random" and params.profile != "ci":
        fix = "set base_model.source to embedded for results worth reading"
        yield Finding("base_model.source", "random is a tiny model of random weights, for tests", fix)


def _has_cuda() -> bool:
    import torch  # noqa: PLC0415 - seconds, and only one optimizer asks

    return torch.cuda.is_available()


def _about_arms(params: Params) -> Iterator[Finding]:
    made, scored, arms = params.controls.names, params.score.sources, params.fuse.arms
    for name in made:
        if not {name, f"{name}_filtered"} & set(arms):
            yield Finding(
                "controls.names", f"{name} is made and no arm trains on it", f"take it out, or add {name} to fuse.arms"
            )
    for name in scored:
        if name != GENERATOR and f"{name}_filtered" not in arms:
            fix = f"take it out, or add {name}_filtered to fuse.arms"
            yield Finding("score.sources", f"{name} is scored and no arm is filtered by it", fix)


def _about_selection(params: Params, raw: dict[str, Any]) -> Iterator[Finding]:
    fuse, written = params.fuse, raw.get("fuse", {})
    if fuse.selection != "custom" and written.get("custom") and params.profile:
        fix = "set fuse.selection to custom, or leave fuse.custom empty"
        yield Finding("fuse.custom", f"has no effect under fuse.selection {fuse.selection}", fix)
    if fuse.selection in ("paper", "most_credible"):
        if params.judge.by == "head" and fuse.threshold >= UNLIKELY:
            found = f"{fuse.threshold:g} is more than judge.by head says of nearly any pair: few proposals come true"
            yield Finding("fuse.threshold", found, "lower it to a few per cent, or set judge.by to yes_no")
        return
    differing = {entry.partition("=")[0] for entry in profile.differences()}
    for key in ("threshold", "max_synthetic_per_user"):
        if f"fuse.{key}" in differing:
            fix = "set fuse.selection to paper, or change fuse.custom under fuse.selection custom"
            yield Finding(f"fuse.{key}", f"has no effect under fuse.selection {fuse.selection}", fix)
