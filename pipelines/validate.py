"""The pipeline of stage validate."""

from pipelines.zenml_store import stage_pipeline
from steps.validate import validate as step


@stage_pipeline
def validate() -> None:
    """Check the raw tables."""
    step()
