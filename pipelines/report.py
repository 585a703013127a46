"""The pipeline of stage report."""

from pipelines.zenml_store import stage_pipeline
from steps.report import report as step


@stage_pipeline
def report() -> None:
    """One page that says whether augmentation helped."""
    step()
