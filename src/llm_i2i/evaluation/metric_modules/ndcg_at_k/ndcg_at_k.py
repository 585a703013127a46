"""NDCG@k for ranked lists with one relevant item each, as a module of the `evaluate` library.

Load it by path, without a network: `evaluate.load(str(llm_i2i.evaluation.METRIC_MODULES / "ndcg_at_k"))`.
The numbers are those of `llm_i2i.evaluation.metrics`, which the pipeline calls on whole arrays.
"""

from typing import Any

import datasets
import evaluate

from llm_i2i.evaluation.metrics import ranks_in_lists
from llm_i2i.measures import ndcg_at_k

DESCRIPTION = "Mean NDCG@k over users with one relevant item each."
CITATION = ""
INPUTS = """
Args:
    predictions: One list of item ids per user, best first, without repeats.
    references: One relevant item id per user.
    k: Cut-off, >= 1 (default 10).
Returns:
    {"ndcg_at_k": mean over users, in [0, 1]}
"""


class NdcgAtK(evaluate.Metric):  # type: ignore[misc]  # the library is untyped
    """NDCG@k with one relevant item per user."""

    def _info(self) -> evaluate.MetricInfo:
        features = {
            "predictions": datasets.Sequence(datasets.Value("string")),
            "references": datasets.Value("string"),
        }
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation=CITATION,
            inputs_description=INPUTS,
            features=datasets.Features(features),
        )

    def _compute(self, predictions: list[list[str]], references: list[str], k: int = 10) -> dict[str, Any]:
        ranks = ranks_in_lists(predictions, references)
        return {"ndcg_at_k": float(ndcg_at_k(ranks, k).mean())}
