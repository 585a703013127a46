"""What the metric modules for the library `evaluate` share: one relevant item per user, and its rank in a list."""

from abc import abstractmethod
from typing import Any, Final

import datasets
import evaluate

from llm_i2i.arrays import Array
from llm_i2i.evaluation.metrics import ranks_in_lists

INPUTS: Final = """
Args:
    predictions: One list of item ids per user, best first, without repeats.
    references: One relevant item id per user.
    k: Cut-off, >= 1 (default 10).
Returns:
    {NAME: mean over users, in [0, 1]}, NAME being the module's
"""


class RankMetric(evaluate.Metric):  # type: ignore[misc]  # the library is untyped
    """Mean over users of a function of the relevant item's rank."""

    @staticmethod
    @abstractmethod
    def per_user(ranks: Array, k: int) -> Array:
        """Return the metric of each user, float64 (n_users,), from int64 ranks (0 = not in the list)."""

    def _info(self) -> evaluate.MetricInfo:
        features = {"predictions": datasets.Sequence(datasets.Value("string")), "references": datasets.Value("string")}
        return evaluate.MetricInfo(
            description=type(self).__doc__, citation="", inputs_description=INPUTS, features=datasets.Features(features)
        )

    def _compute(self, predictions: list[list[str]], references: list[str], k: int = 10) -> dict[str, Any]:
        values = self.per_user(ranks_in_lists(predictions, references), k)
        return {self.name: float(values.mean())}
