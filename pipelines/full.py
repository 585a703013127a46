"""The whole graph as one ZenML pipeline, for a stack that shows or schedules it elsewhere.

The steps and their order are those of DVC's own graph; each runs `dvc repro --single-item STAGE`, so that a
stage that DVC has cached stays cached, and publishes what dvc.lock then says. The steps work in one
project folder: on a remote stack, mount it, or give DVC a remote.
"""

import os
import re

from llm_i2i.dvc import dvc, graph, stage_outs
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
