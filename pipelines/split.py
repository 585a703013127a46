"""The pipeline of stage split."""

from pipelines.zenml_store import stage_pipeline
from steps.split import split as step


@stage_pipeline
def split() -> None:
    """Leave the last two items of each user out."""
    step()
