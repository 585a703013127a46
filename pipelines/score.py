"""The pipeline of stage score."""

from pipelines.zenml_store import stage_pipeline
from steps.score import score as step


@stage_pipeline
def score() -> None:
    """Ask the discriminator about every synthetic and many real pairs."""
    step()
