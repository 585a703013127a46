"""The neighbours of items as flat arrays, and the ranking of a query's: numpy alone, so that a service starts fast.

The same numbers in the same order as `llm_i2i.i2i.recommend`, without numba and for one user at a time:
score(candidate) = sum over the last M history items of decay^age x similarity, added in float64 from the most
recent item on, compared as float32, ties by item id.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from llm_i2i.arrays import Array


class Neighbours(NamedTuple):
    """Every item's neighbours: item n has `items[bounds[n]:bounds[n + 1]]`, best first.

    Attributes:
        bounds: n_items + 1 whole numbers.
        items: int32 (n,), places of the neighbours.
        scores: float32 (n,).
    """

    bounds: Sequence[int]
    items: Array
    scores: Array


def own_query(manifest: Mapping[str, Any]) -> tuple[int, float]:
    """The query that an index was tuned for: (last_m, decay)."""
    own = manifest.get("params", {}).get(manifest.get("model"), {})
    return int(own.get("last_m", 0)), float(own.get("decay", 1.0))


def best(
    neighbours: Neighbours, query: Sequence[int | None], *, decay: float, top_k: int, keep: Callable[[Array], Array]
) -> tuple[list[int], list[float]]:
    """Rank the neighbours of some items.

    Args:
        neighbours: The index.
        query: Places of the items, oldest first; None = unknown, takes a place in the query and adds nothing.
        decay: In (0, 1].
        top_k: Longest list, >= 1.
        keep: Which of some places may be recommended: bool, same shape.

    Returns:
        Places and float32 scores of at most `top_k` items, best first.
    """
    parts = _parts(neighbours, query, decay)
    candidates, scores = _sums(parts, len(neighbours.bounds) - 1)
    kept = (scores > 0) & keep(candidates)
    candidates, scores = candidates[kept], scores[kept]
    if scores.size > 64 * top_k:  # fewer are sorted whole in less time
        least = np.partition(scores, -top_k)[-top_k]
        candidates, scores = candidates[scores >= least], scores[scores >= least]  # all that tie stay
    order = np.lexsort((candidates, -scores))[:top_k]
    return candidates[order].tolist(), scores[order].tolist()


def _parts(neighbours: Neighbours, query: Sequence[int | None], decay: float) -> list[tuple[Array, Array, float]]:
    """Return the neighbours of each query item, their scores and the item's weight, the most recent item first."""
    bounds, items, scores = neighbours
    parts = []
    weight = 1.0
    for place in reversed(query):
        if place is not None and (start := bounds[place]) < (end := bounds[place + 1]):
            parts.append((items[start:end], scores[start:end], weight))
        weight *= decay
    return parts


def _sums(parts: list[tuple[Array, Array, float]], n_items: int) -> tuple[Array, Array]:
    """Sum what each neighbour gains, one after the other in float64; return items and float32 sums.

    A table of all items is the fastest unless the catalogue is far larger than what was found; then a `dict` is, which
    does not pay for a numpy call per step.
    """
    if parts and n_items <= 64 * sum(items.size for items, _, _ in parts):
        found = np.concatenate([items for items, _, _ in parts])
        gains = np.concatenate([np.multiply(scores, weight, dtype=np.float64) for _, scores, weight in parts])
        sums = np.bincount(found, weights=gains)
        places = np.flatnonzero(sums)
        return places, sums[places].astype(np.float32)
    total: dict[int, float] = {}
    for items, scores, weight in parts:
        for item, score in zip(items.tolist(), scores.tolist(), strict=True):
            total[item] = total.get(item, 0.0) + score * weight
    return np.fromiter(total, np.int64, len(total)), np.fromiter(total.values(), np.float32, len(total))
