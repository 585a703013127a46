"""The pipeline of stage evaluate_generator."""

from pipelines.zenml_store import stage_pipeline
from steps.evaluate_generator import evaluate_generator as step


@stage_pipeline
def evaluate_generator(arm: str) -> None:
    """The generator as a recommender of its own, on the test items."""
    step(arm=arm)
