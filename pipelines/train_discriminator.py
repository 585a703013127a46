"""The pipeline of stage train_discriminator."""

from pipelines.zenml_store import stage_pipeline
from steps.train_discriminator import train_discriminator as step


@stage_pipeline
def train_discriminator() -> None:
    """QLoRA-tune the judge of pairs of user and item."""
    step()
