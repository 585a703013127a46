"""How sure a mean difference of two models is: users are resampled and, where there are several, training seeds.

A bootstrap over users alone calls a lucky training better: it says nothing about what another training would
change. With several seeds the interval covers both.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import special

from llm_i2i.arrays import Array
from llm_i2i.errors import DataError, ParamsError

BLOCK = 1 << 22  # random indices at a time: 16 MiB


class Interval(NamedTuple):
    """Mean difference and its 95 % percentile interval."""

    mean: float
    low: float
    high: float


def pooled_difference(differences: Sequence[Array], *, resamples: int, seed: int) -> Interval:
    """Bootstrap a mean of paired differences, over users and, where there are several, seeds (percentiles, Efron 1979).

    A resample draws users with replacement, the same users for every seed, and seeds with replacement. The
    spread between seeds is widened by t(n - 1) / z x sqrt(n / (n - 1)), n seeds, since resampling few of them
    understates it (the expanded percentile interval of Hesterberg 2015, arXiv:1411.5279). So a difference no
    larger than what another seed would make does not get an interval above 0.

    Args:
        differences: One float (n_users,) per seed: candidate - baseline of the same users in the same order.
        resamples: >= 1.
        seed: Same seed, same interval.

    Returns:
        Mean and 95 % interval; of one seed, the interval covers users only.

    Raises:
        DataError: No values, not finite, or of different lengths.
        ParamsError: `resamples` is below 1.
    """
    if resamples < 1:
        raise ParamsError("bootstrap resamples", f"is {resamples}", ">= 1")
    rows = [np.asarray(row, dtype=np.float64) for row in differences]
    if not rows or any(row.ndim != 1 or row.shape != rows[0].shape or not row.size for row in rows):
        shapes = [row.shape for row in rows]
        raise DataError("bootstrap", f"differences of shapes {shapes}", "one vector of the same users per seed")
    table = np.stack(rows)
    if not np.isfinite(table).all():
        raise DataError("bootstrap", f"{int((~np.isfinite(table)).sum()):,} differences are not finite")
    generator = np.random.default_rng(seed)
    means = _resampled_means(table, generator, resamples)
    low, high = np.quantile(means.mean(axis=1) + _seed_noise(means, generator), [0.025, 0.975])
    return Interval(float(table.mean()), float(low), float(high))


def _seed_noise(means: Array, generator: np.random.Generator) -> Array:
    """Return by how much a resample of seeds moves the mean, widened for their small number."""
    resamples, n = means.shape
    if n == 1:
        return np.zeros(resamples)
    chosen = generator.integers(0, n, size=(resamples, n))
    moved = np.take_along_axis(means, chosen, axis=1).mean(axis=1) - means.mean(axis=1)
    wider = float(special.stdtrit(n - 1, 0.975) / special.ndtri(0.975)) * (n / (n - 1)) ** 0.5
    return np.asarray(moved * wider, dtype=np.float64)


def _resampled_means(values: Array, generator: np.random.Generator, resamples: int) -> Array:
    """Return float64 (resamples, n_seeds): the means of each seed over the same resampled users.

    Metrics of ranks have few distinct differences. How often each occurs in a resample is then drawn at
    once, as a multinomial: the same distribution as drawing users one by one, about 20 times faster.
    """
    n_seeds, n = values.shape
    kinds, counts = np.unique(values, axis=1, return_counts=True)
    few = 10 * kinds.shape[1] < n
    block = max(1, BLOCK // (kinds.shape[1] if few else n))
    means = np.empty((resamples, n_seeds))
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        if few:
            drawn = generator.multinomial(n, counts / n, size=size)
        else:
            users = generator.integers(0, n, size=(size, n), dtype=np.uint32)
            rows = np.arange(size, dtype=np.int64)[:, None] * n
            drawn = np.bincount((users + rows).ravel(), minlength=size * n).reshape(size, n)
        means[start : start + size] = drawn @ (kinds if few else values).T / n
    return means
