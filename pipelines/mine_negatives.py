"""The pipeline of stage mine_negatives."""

from pipelines.zenml_store import stage_pipeline
from steps.mine_negatives import mine_negatives as step


@stage_pipeline
def mine_negatives() -> None:
    """Look up what the generator nearly gets right."""
    step()
