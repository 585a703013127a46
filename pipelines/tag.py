"""The pipeline of stage tag."""

from pipelines.zenml_store import stage_pipeline
from steps.tag import tag as step


@stage_pipeline
def tag() -> None:
    """The catalogue with popularity groups, on training counts only."""
    step()
