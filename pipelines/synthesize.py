"""The pipeline of stage synthesize."""

from pipelines.zenml_store import stage_pipeline
from steps.synthesize import synthesize as step


@stage_pipeline
def synthesize() -> None:
    """Generate the items that users would take next."""
    step()
