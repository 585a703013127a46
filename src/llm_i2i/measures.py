"""Measures that several rooms take alike: accuracy by the target's rank, and how uneven counts are.

With one target per user, all accuracy metrics are functions of its rank (1-based; 0 = not ranked):
recall = hit rate = [rank <= k], NDCG = 1 / log2(rank + 1), MRR = MAP = 1 / rank within k, else 0.
"""

import numpy as np

from llm_i2i.arrays import Array, IntArray


def target_ranks(found: IntArray, targets: IntArray) -> IntArray:
    """Rank of one target per row, from 1; 0 where it is not in the list.

    Args:
        found: int64 (n_rows, k): items, best first.
        targets: int64 (n_rows,).
    """
    hits = found == targets[:, None]
    return np.where(hits.any(axis=1), hits.argmax(axis=1) + 1, 0)


def recall_at_k(ranks: Array, k: int) -> Array:
    """Return per user 1.0 if the target is among the first k, else 0.0.

    Args:
        ranks: int (n_users,), 1-based, 0 = not ranked.
        k: Cut-off, >= 1.

    Returns:
        float64 (n_users,).
    """
    return _within(ranks, k).astype(np.float64)


def ndcg_at_k(ranks: Array, k: int) -> Array:
    """Return per user 1 / log2(rank + 1) within k, else 0.0; the ideal gain of one target is 1.

    Args and returns: as of `recall_at_k`.
    """
    return np.where(_within(ranks, k), 1.0 / np.log2(np.maximum(ranks, 1) + 1.0), 0.0)


def mrr_at_k(ranks: Array, k: int) -> Array:
    """Return per user 1 / rank within k, else 0.0; with one target this is average precision too.

    Args and returns: as of `recall_at_k`.
    """
    return np.where(_within(ranks, k), 1.0 / np.maximum(ranks, 1), 0.0)


def gini(counts: Array) -> float:
    """Return the Gini coefficient of non-negative counts, in [0, 1); 0 if all are 0.

    Args:
        counts: int (n,), at least one.
    """
    ordered = np.sort(counts).astype(np.float64)
    n, total = len(ordered), float(ordered.sum())
    if total == 0.0:
        return 0.0
    return float(2.0 * (np.arange(1, n + 1) @ ordered) / (n * total) - (n + 1.0) / n)


def _within(ranks: Array, k: int) -> Array:
    """Return whether ranks lie in 1..k."""
    return (ranks >= 1) & (ranks <= k)
