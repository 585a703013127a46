"""The pipeline of stage controls."""

from pipelines.zenml_store import stage_pipeline
from steps.controls import controls as step


@stage_pipeline
def controls(name: str) -> None:
    """One control's synthetic pairs, as many a user as the generator wrote."""
    step(name=name)
