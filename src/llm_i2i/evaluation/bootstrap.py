"""Paired bootstrap over users: how sure a difference of two models is, for these trained models.

It says nothing about the variance of training: `seeds` does, of several trainings.
"""

from typing import Any, NamedTuple

import numpy as np

from llm_i2i.errors import DataError, ParamsError

BLOCK = 1 << 22  # random indices at a time: 16 MiB


class Interval(NamedTuple):
    """Mean difference and its 95 % percentile interval."""

    mean: float
    low: float
    high: float


def paired_bootstrap(
    candidate: np.ndarray[Any, Any], baseline: np.ndarray[Any, Any], *, resamples: int, seed: int
) -> Interval:
    """Bootstrap the mean of candidate - baseline over users.

    Users are resampled with replacement; a user carries both values (paired). Percentile method
    (Efron 1979).

    Args:
        candidate: float (n_users,), one metric per user.
        baseline: The same users in the same order.
        resamples: >= 1.
        seed: Same seed, same interval.

    Returns:
        Mean of candidate - baseline and its 2.5 and 97.5 percentiles.

    Raises:
        DataError: Empty, not finite, or of different lengths.
        ParamsError: `resamples` is below 1.
    """
    if resamples < 1:
        raise ParamsError("bootstrap resamples", f"is {resamples}", ">= 1")
    one, other = np.asarray(candidate, dtype=np.float64), np.asarray(baseline, dtype=np.float64)
    if one.shape != other.shape or one.ndim != 1 or not one.size:
        raise DataError("bootstrap", f"shapes {one.shape} and {other.shape}", "two vectors of the same users")
    difference = one - other
    if not np.isfinite(difference).all():
        raise DataError("bootstrap", f"{int((~np.isfinite(difference)).sum()):,} differences are not finite")
    means = _resampled_means(difference, resamples=resamples, seed=seed)
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(float(difference.mean()), float(low), float(high))


def _resampled_means(difference: np.ndarray[Any, Any], *, resamples: int, seed: int) -> np.ndarray[Any, Any]:
    """Return float64 (resamples,) means of resampled users.

    Metrics of ranks have few distinct differences. How often each occurs in a resample is then drawn at
    once, as a multinomial: the same distribution as drawing users one by one, about 20 times faster.
    """
    generator = np.random.default_rng(seed)
    n = difference.size
    values, counts = np.unique(difference, return_counts=True)
    few = 10 * values.size < n
    block = max(1, BLOCK // (values.size if few else n))
    means = np.empty(resamples, dtype=np.float64)
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        if few:
            means[start : start + size] = generator.multinomial(n, counts / n, size=size) @ values / n
        else:
            users = generator.integers(0, n, size=(size, n), dtype=np.uint32)
            means[start : start + size] = difference[users].sum(axis=1) / n
    return means
