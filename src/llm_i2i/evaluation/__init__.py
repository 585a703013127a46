"""The evaluation protocol, metrics and intervals."""

from pathlib import Path
from typing import Final

from llm_i2i.evaluation.bootstrap import Interval, pooled_difference
from llm_i2i.evaluation.evaluate import evaluate_index
from llm_i2i.evaluation.metrics import per_user_metric
from llm_i2i.evaluation.paired import Measured, PairedDifference
from llm_i2i.evaluation.protocol import Protocol, require_same_protocol
from llm_i2i.measures import ndcg_at_k, recall_at_k

# Folders that `evaluate.load` takes: METRIC_MODULES / "recall_at_k", METRIC_MODULES / "ndcg_at_k".
METRIC_MODULES: Final = Path(__file__).parent / "metric_modules"

__all__ = [
    "METRIC_MODULES",
    "Interval",
    "Measured",
    "PairedDifference",
    "Protocol",
    "evaluate_index",
    "ndcg_at_k",
    "per_user_metric",
    "pooled_difference",
    "recall_at_k",
    "require_same_protocol",
]
