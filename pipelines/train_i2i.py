"""The pipeline of stage train_i2i."""

from pipelines.zenml_store import stage_pipeline
from steps.train_i2i import train_i2i as step


@stage_pipeline
def train_i2i(model: str, arm: str) -> None:
    """An item-to-item index of one model on one arm's data."""
    step(model=model, arm=arm)
