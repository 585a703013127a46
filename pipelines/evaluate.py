"""The pipeline of stage evaluate."""

from pipelines.zenml_store import stage_pipeline
from steps.evaluate import evaluate as step


@stage_pipeline
def evaluate(model: str, arm: str) -> None:
    """Measure one index on the test items."""
    step(model=model, arm=arm)
