"""Recall@k for ranked lists with one relevant item each, as a module of the `evaluate` library.

Load it by path, without a network: `evaluate.load(str(llm_i2i.evaluation.METRIC_MODULES / "recall_at_k"))`.
The numbers are those of `llm_i2i.evaluation.metrics`, which the pipeline calls on whole arrays.
"""

from llm_i2i.evaluation import rank_metric
from llm_i2i.measures import recall_at_k


class RecallAtK(rank_metric.RankMetric):
    """Mean Recall@k over users with one relevant item each."""

    per_user = staticmethod(recall_at_k)
