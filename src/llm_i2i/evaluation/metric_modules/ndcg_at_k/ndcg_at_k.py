"""NDCG@k for ranked lists with one relevant item each, as a module of the `evaluate` library.

Load it by path, without a network: `evaluate.load(str(llm_i2i.evaluation.METRIC_MODULES / "ndcg_at_k"))`.
The numbers are those of `llm_i2i.evaluation.metrics`, which the pipeline calls on whole arrays.
"""

from llm_i2i.evaluation import rank_metric
from llm_i2i.measures import ndcg_at_k


class NdcgAtK(rank_metric.RankMetric):
    """Mean NDCG@k over users with one relevant item each."""

    per_user = staticmethod(ndcg_at_k)
