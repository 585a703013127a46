"""The one paired difference of two evaluated models: refuse what does not compare, then bootstrap over users and seeds.

Everything that says "better" or "worse" asks here: the gate, the report, experiments, comparisons of revisions.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from llm_i2i.arrays import FloatArray
from llm_i2i.errors import ArtifactError, DataError
from llm_i2i.evaluation.bootstrap import Interval, pooled_difference
from llm_i2i.evaluation.metrics import per_user_metric
from llm_i2i.evaluation.protocol import require_same_protocol
from llm_i2i.schema import IS_LONG_TAIL, ITEM_ID, LONG_TAIL, OVERALL, USER_ID

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Measured:
    """What one model's evaluation gave, once per seed.

    Attributes:
        metrics: Content of the metrics JSON by seed; empty only where both sides' protocols have been compared.
        per_user: `schema.PER_USER` by seed.
    """

    metrics: Mapping[int, Mapping[str, Any]]
    per_user: Mapping[int, pd.DataFrame]

    @classmethod
    def once(cls, per_user: pd.DataFrame, metrics: Mapping[str, Any] | None = None) -> "Measured":
        """One evaluation under one seed."""
        return cls({} if metrics is None else {0: metrics}, {0: per_user})


class PairedDifference:
    """Candidate - baseline, user by user.

    The groups of items depend on the seed where ties in their counts or in users' histories do: in a slice count
    the users whose target is in it under every seed. Where each seed tests other users (a seeded sample of
    them), the seeds' users make one larger sample, and the interval covers users only.

    Args:
        candidate: One model.
        baseline: The other, of the same seeds; None = a model that finds nothing, so that values of `candidate`
            alone get an interval.
        same_query: False lets the queries' last_m and decay differ (a plain against a tuned model).

    Raises:
        ArtifactError: The sides have other seeds, protocols, users or targets.
    """

    def __init__(self, candidate: Measured, baseline: Measured | None, *, same_query: bool = True) -> None:
        self._seeds = sorted(candidate.per_user)
        if not self._seeds or (baseline is not None and sorted(baseline.per_user) != self._seeds):
            other = [] if baseline is None else sorted(baseline.per_user)
            raise ArtifactError("per-user results", f"seeds {self._seeds} against {other}", "the same seeds")
        if baseline is not None:
            _require_comparable(candidate, baseline, same_query=same_query)
        self._ours = [_sorted(candidate.per_user[seed]) for seed in self._seeds]
        self._theirs = None if baseline is None else [_sorted(baseline.per_user[seed]) for seed in self._seeds]
        keys = [USER_ID, ITEM_ID, "bucket"]
        for seed, ours, theirs in zip(self._seeds, self._ours, self._theirs or self._ours, strict=True):
            if not ours[keys].equals(theirs[keys]):
                found = f"seed {seed}: the two sides hold other users or targets"
                raise ArtifactError("per-user results", found, "one test split")
        users = [table[USER_ID] for table in self._ours]
        self._same_users = all(found.equals(users[0]) for found in users)

    def n_users(self, slice_name: str = OVERALL) -> int:
        """Users who count in a slice; the smallest number of any seed."""
        return min(int(mask.sum()) for mask in self._masks(slice_name))

    def by_seed(self, metric: str, slice_name: str = OVERALL) -> list[float]:
        """Mean difference under each seed, seeds in ascending order; 0 where no user counts."""
        return [float(row.mean()) if row.size else 0.0 for row in self._differences(metric, slice_name)]

    def interval(self, metric: str, slice_name: str = OVERALL, *, resamples: int, seed: int) -> Interval:
        """Mean difference and its 95 % interval, over users and, where there are several, seeds.

        Args:
            metric: METRIC@K, such as `ndcg@10`.
            slice_name: One of `schema.SLICES`.
            resamples: >= 1.
            seed: Of the bootstrap: same seed, same interval.

        Raises:
            DataError: No user counts in the slice.
        """
        rows = self._differences(metric, slice_name)
        if not all(row.size for row in rows):
            raise DataError("per-user results", f"no target is in slice {slice_name!r}", "at least one")
        if not self._same_users:
            rows = [np.concatenate(rows)]
        return pooled_difference(rows, resamples=resamples, seed=seed)

    def _differences(self, metric: str, slice_name: str) -> list[FloatArray]:
        rows = [per_user_metric(metric, table["rank"].to_numpy()) for table in self._ours]
        if self._theirs is not None:
            theirs = [per_user_metric(metric, table["rank"].to_numpy()) for table in self._theirs]
            rows = [one - other for one, other in zip(rows, theirs, strict=True)]
        return [row[mask] for row, mask in zip(rows, self._masks(slice_name), strict=True)]

    def _masks(self, slice_name: str) -> list[Mask]:
        masks = [in_slice(table, slice_name) for table in self._ours]
        return [np.logical_and.reduce(masks)] * len(masks) if self._same_users else masks


def in_slice(per_user: pd.DataFrame, slice_name: str) -> Mask:
    """Which test users belong to a slice, by their target: bool (n_users,).

    Args:
        per_user: `schema.PER_USER`; for the long tail with column `is_long_tail` (`with_long_tail`).
        slice_name: One of `schema.SLICES`.

    Raises:
        ArtifactError: The long tail is asked for and the column is not there.
    """
    if slice_name == OVERALL:
        return np.ones(len(per_user), dtype=np.bool_)
    if slice_name != LONG_TAIL:
        return (per_user["bucket"] == slice_name).to_numpy(dtype=np.bool_)
    if IS_LONG_TAIL not in per_user:
        raise ArtifactError("per-user results", f"column {IS_LONG_TAIL} is missing", "see `with_long_tail`")
    return per_user[IS_LONG_TAIL].to_numpy(dtype=np.bool_)


def with_long_tail(per_user: pd.DataFrame, items: pd.DataFrame) -> pd.DataFrame:
    """Per-user results with a column that tells whether the target is a long-tail item.

    Args:
        per_user: `schema.PER_USER`.
        items: `schema.ITEMS`.
    """
    long_tail = items.loc[items[IS_LONG_TAIL], ITEM_ID]
    return per_user.assign(**{IS_LONG_TAIL: per_user[ITEM_ID].isin(long_tail)})


def _require_comparable(candidate: Measured, baseline: Measured, *, same_query: bool) -> None:
    """Compare the protocols of every seed; none is compared only if neither side tells its own."""
    if not candidate.metrics and not baseline.metrics:
        return
    for seed in sorted(candidate.per_user):
        one, other = candidate.metrics.get(seed, {}), baseline.metrics.get(seed, {})
        require_same_protocol(one, other, same_query=same_query)


def _sorted(per_user: pd.DataFrame) -> pd.DataFrame:
    return per_user.sort_values(USER_ID, kind="stable", ignore_index=True)
