"""The pipeline of stage base_model."""

from pipelines.zenml_store import stage_pipeline
from steps.base_model import base_model as step


@stage_pipeline
def base_model() -> None:
    """Obtain the base LLM."""
    step()
