"""The pipeline of stage train_generator."""

from pipelines.zenml_store import stage_pipeline
from steps.train_generator import train_generator as step


@stage_pipeline
def train_generator() -> None:
    """QLoRA-tune the writer of synthetic interactions."""
    step()
