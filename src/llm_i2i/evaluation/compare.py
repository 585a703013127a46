"""Compare two evaluated runs: refuse what does not compare, then bootstrap the paired difference."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from llm_i2i.errors import ArtifactError, DataError
from llm_i2i.evaluation.bootstrap import Interval, paired_bootstrap
from llm_i2i.evaluation.metrics import per_user_metric
from llm_i2i.evaluation.protocol import require_same_protocol
from llm_i2i.schema import ITEM_ID, USER_ID

Run = tuple[Mapping[str, Any], pd.DataFrame]  # (what a metrics JSON holds, schema.PER_USER)


def compare_runs(
    candidate: Run,
    baseline: Run,
    *,
    metric: str,
    resamples: int,
    seed: int,
    bucket: str | None = None,
    same_query: bool = True,
) -> Interval:
    """Bootstrap the paired difference of two runs in one metric.

    Args:
        candidate: Metrics and per-user ranks, as of `evaluate_index`.
        baseline: The same of another run.
        metric: METRIC@K, such as `ndcg@10`.
        resamples: >= 1.
        seed: Same seed, same interval.
        bucket: Only users whose target is in this bucket; None = all.
        same_query: False lets the queries' last_m and decay differ (plain against tuned models).

    Returns:
        Mean of candidate - baseline and its 95 % interval, over users, for these trained models.

    Raises:
        ArtifactError: The protocols or the tested users and targets differ.
        DataError: No user has a target in the bucket.
    """
    require_same_protocol(candidate[0], baseline[0], same_query=same_query)
    one, other = (
        run[1].sort_values(USER_ID, kind="stable", ignore_index=True) for run in (candidate, baseline)
    )
    keys = [USER_ID, ITEM_ID, "bucket"]
    if not one[keys].equals(other[keys]):
        raise ArtifactError("per-user results", "other users or targets", "the same in both runs")
    if bucket is not None:
        one, other = one[one["bucket"] == bucket], other[other["bucket"] == bucket]
        if one.empty:
            raise DataError("per-user results", f"no target is in bucket {bucket!r}", "at least one")
    values = [per_user_metric(metric, table["rank"].to_numpy()) for table in (one, other)]
    return paired_bootstrap(values[0], values[1], resamples=resamples, seed=seed)
