"""The whole graph as one ZenML pipeline, for a stack that shows or schedules it elsewhere.

The steps and their order are those of DVC's own graph; each runs `dvc repro --single-item STAGE`, so that a
stage that DVC has cached stays cached, and publishes what dvc.lock then says. The steps work in one
project folder: on a remote stack, mount it, or give DVC a remote.
"""

import os
import re
from graphlib import TopologicalSorter

from llm_i2i.dvc import dvc, stage_outs
from llm_i2i.errors import LlmI2iError
from pipelines.zenml_store import zenml_pipeline
from steps.description import Description
from steps.stage import plain_step, zenml_is_on


@plain_step
def dvc_stage(stage: str) -> Description:
    """Let DVC bring one stage up to date, then publish its outputs as dvc.lock has them.

    Args:
        stage: Name in dvc.lock, `fuse@real` for matrix stages.
    """
    dvc("repro", "--single-item", stage)
    return Description(stage, stage_outs(stage), rows=None)


def graph() -> dict[str, set[str]]:
    """Stages and what they wait for, in an order to run them in, as DVC sees it."""
    before: dict[str, set[str]] = {}
    for line in dvc("dag", "--dot").splitlines():
        names = re.findall(r'"([^"]+)"', line)
        for name in names:
            before.setdefault(name, set())
        if len(names) == 2:
            before[names[1]].add(names[0])
    # data.dvc is no stage: it is there before any of them.
    stages = [name for name in TopologicalSorter(before).static_order() if not name.endswith(".dvc")]
    return {name: before[name] & set(stages) for name in stages}


@zenml_pipeline
def full() -> None:
    """Every stage of dvc.yaml, in DVC's order."""
    if not zenml_is_on() or "DVC_STAGE" in os.environ:
        raise LlmI2iError(
            "python -m pipelines full",
            "runs inside a DVC stage or with LLM_I2I_ZENML=off",
            fix="run it from a shell; `dvc repro` is the way without ZenML",
        )
    for stage, before in graph().items():
        dvc_stage(stage=stage, id=_id(stage), after=sorted(map(_id, before)))


def _id(stage: str) -> str:
    return re.sub(r"\W", "_", stage)
