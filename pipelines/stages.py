"""The ZenML pipeline of every stage: it calls the stage's step once. dvc.yaml decides the order."""

import importlib
import inspect
from collections.abc import Callable
from typing import Any

from llm_i2i.stages import STAGES
from pipelines.zenml_store import zenml_pipeline


def stage_pipeline(stage: str) -> Callable[..., Any]:
    """The pipeline of one stage; only that stage's code is imported.

    Args:
        stage: A name of `llm_i2i.stages.STAGES`.

    Returns:
        A callable that takes the keys of the stage's matrix.
    """
    step = getattr(importlib.import_module(f"steps.{stage}"), stage)

    def run(**matrix: str) -> None:
        step(**matrix)

    keys = [inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, annotation=str) for key in STAGES[stage]]
    # Not functools.wraps: ZenML reads the source of what a function wraps, and a step has none.
    run.__name__ = run.__qualname__ = stage
    run.__doc__ = step.__doc__
    run.__signature__ = inspect.Signature(keys, return_annotation=None)  # type: ignore[attr-defined]
    return zenml_pipeline(run)
