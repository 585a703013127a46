"""The pipeline of stage identify."""

from pipelines.zenml_store import stage_pipeline
from steps.identify import identify as step


@stage_pipeline
def identify() -> None:
    """Name every item for the LLM."""
    step()
