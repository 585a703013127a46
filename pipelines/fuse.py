"""The pipeline of stage fuse."""

from pipelines.zenml_store import stage_pipeline
from steps.fuse import fuse as step


@stage_pipeline
def fuse(arm: str) -> None:
    """One arm's training data, real and synthetic."""
    step(arm=arm)
