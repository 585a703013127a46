"""Several training seeds: mean, spread, and a difference that resamples users and seeds.

A bootstrap over users alone calls a lucky training better. Here a seed is one training of a model, and the
interval covers both what other users and what other trainings would change.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from llm_i2i.arrays import Array
from llm_i2i.errors import DataError, ParamsError
from llm_i2i.evaluation.bootstrap import Interval, paired_bootstrap

BLOCK = 1 << 22  # random numbers at a time


class SeedSummary(NamedTuple):
    """A metric over several trainings.

    Attributes:
        mean: Over users and seeds.
        sd: Standard deviation of the seeds' means (n - 1); NaN for one seed.
        low: Lower end of the 95 % interval of `mean`, users and seeds resampled.
        high: Upper end.
        n_seeds: Trainings.
        n_users: Users.
    """

    mean: float
    sd: float
    low: float
    high: float
    n_seeds: int
    n_users: int


def seed_summary(values: Sequence[Array], *, resamples: int, seed: int) -> SeedSummary:
    """Summarise one metric of the same users over several trainings.

    Args:
        values: One float (n_users,) a training, users in the same order; for one training alone the interval
            covers the users only.
        resamples: >= 1.
        seed: Same seed, same interval.

    Raises:
        DataError: No values, not finite, or of different lengths.
        ParamsError: `resamples` is below 1.
    """
    table = _table("values", values)
    interval = _interval(table, np.zeros((1, table.shape[1])), paired=False, resamples=resamples, seed=seed)
    means = table.mean(axis=1)
    sd = float(means.std(ddof=1)) if len(means) > 1 else float("nan")
    return SeedSummary(interval.mean, sd, interval.low, interval.high, *table.shape)


def seeds_difference(
    candidate: Sequence[Array] | Array,
    baseline: Sequence[Array],
    *,
    resamples: int,
    seed: int,
    paired_seeds: bool = False,
) -> Interval:
    """Bootstrap the mean of candidate - baseline over users and seeds.

    A resample draws users with replacement, the same users for every training (paired), and trainings with
    replacement, of candidate and baseline apart. The spread between trainings is widened by
    t(n - 1) / z x sqrt(n / (n - 1)), n trainings, since resampling few of them understates it (the expanded
    percentile interval of Hesterberg 2015, arXiv:1411.5279). So a difference no larger than what
    another seed would make does not get an interval above 0.

    Args:
        candidate: One float (n_users,) a training, users in the same order throughout.
        baseline: The same; a single training stands for a model without randomness, whose spread is 0.
        resamples: >= 1.
        seed: Same seed, same interval.
        paired_seeds: Training n of both shares its seed (and so data, split or generator): trainings are drawn
            as pairs, and both must have as many.

    Returns:
        Mean of candidate - baseline and its 95 % interval.

    Raises:
        DataError: Both hold one training (use `paired_bootstrap`, which says that it covers users only);
            or values are missing, not finite or of different lengths.
        ParamsError: `resamples` is below 1.
    """
    one, other = _table("candidate", candidate), _table("baseline", baseline)
    if one.shape[1] != other.shape[1]:
        raise DataError("seeds", f"{one.shape[1]:,} and {other.shape[1]:,} users", "the same users")
    if len(one) == len(other) == 1:
        found, fix = "one training each", "train with several seeds, or use paired_bootstrap"
        raise DataError("seeds", found, "at least two trainings of the candidate or the baseline", fix)
    if paired_seeds and len(one) != len(other):
        raise DataError("seeds", f"{len(one)} and {len(other)} trainings", "as many of both to pair them")
    return _interval(one, other, paired=paired_seeds, resamples=resamples, seed=seed)


def pooled_difference(differences: Sequence[Array], *, resamples: int, seed: int) -> Interval:
    """Bootstrap differences that are already paired by seed: users and, where there are several, seeds.

    Args:
        differences: One float (n_users,) a seed: candidate - baseline of the same users in the same order.
        resamples: >= 1.
        seed: Same seed, same interval.

    Returns:
        Mean and 95 % interval; of one seed, that of `paired_bootstrap`, which covers users only.

    Raises:
        DataError: No values, not finite, or of different lengths.
        ParamsError: `resamples` is below 1.
    """
    table = _table("differences", differences)
    nothing = np.zeros(table.shape[1])
    if len(table) == 1:
        return paired_bootstrap(table[0], nothing, resamples=resamples, seed=seed)
    return seeds_difference(table, [nothing], resamples=resamples, seed=seed)


def _table(name: str, values: Sequence[Array] | Array) -> Array:
    """Return float64 (n_seeds, n_users)."""
    rows = [np.asarray(row, dtype=np.float64) for row in values]
    if not rows or any(row.ndim != 1 or row.shape != rows[0].shape or not row.size for row in rows):
        shapes = [row.shape for row in rows]
        raise DataError("seeds", f"{name} has shapes {shapes}", "one vector of the same users a training")
    table = np.stack(rows)
    if not np.isfinite(table).all():
        raise DataError("seeds", f"{int((~np.isfinite(table)).sum()):,} values of {name} are not finite")
    return table


def _interval(one: Array, other: Array, *, paired: bool, resamples: int, seed: int) -> Interval:
    """Return the mean difference and the percentiles of the resampled ones."""
    if resamples < 1:
        raise ParamsError("bootstrap resamples", f"is {resamples}", ">= 1")
    generator = np.random.default_rng(seed)
    if paired:
        one, other = one - other, np.zeros((1, one.shape[1]))
    by_seed = _resampled_means(np.concatenate([one, other]), generator, resamples)
    of_one, of_other = by_seed[:, : len(one)], by_seed[:, len(one) :]
    drawn = of_one.mean(axis=1) - of_other.mean(axis=1)
    drawn += _seed_noise(of_one, generator) - _seed_noise(of_other, generator)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Interval(float(one.mean() - other.mean()), float(low), float(high))


def _seed_noise(means: Array, generator: np.random.Generator) -> Array:
    """Return by how much a resample of trainings moves the mean, widened for their small number."""
    resamples, n = means.shape
    if n == 1:
        return np.zeros(resamples)
    chosen = generator.integers(0, n, size=(resamples, n))
    moved = np.take_along_axis(means, chosen, axis=1).mean(axis=1) - means.mean(axis=1)
    wider = float(stats.t.ppf(0.975, n - 1) / stats.norm.ppf(0.975)) * (n / (n - 1)) ** 0.5
    return np.asarray(moved * wider, dtype=np.float64)


def _resampled_means(values: Array, generator: np.random.Generator, resamples: int) -> Array:
    """Return float64 (resamples, n_rows): the means of each row over the same resampled users.

    Users with the same values in all rows are drawn at once, as a multinomial (see `bootstrap`).
    """
    n_rows, n = values.shape
    kinds, counts = np.unique(values, axis=1, return_counts=True)
    few = 10 * kinds.shape[1] < n
    block = max(1, BLOCK // (kinds.shape[1] if few else n))
    means = np.empty((resamples, n_rows))
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
