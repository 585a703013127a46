"""Recommendations online: a user's last items times their neighbours, from an index held in memory.

The same numbers in the same order as `llm_i2i.i2i.recommend`, without numba and for one user at a time:
score(candidate) = sum over the last M history items of decay^age x similarity, added in float64 from the most
recent item on, compared as float32, ties by item id.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from llm_i2i.arrays import Array
from llm_i2i.errors import ParamsError
from llm_i2i.i2i._similar import check_number
from llm_i2i.schema import ITEM_ID


class Scored(NamedTuple):
    """A recommended item and its score, a float32."""

    item_id: str
    score: float


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


class Lookup:
    """An index ready to serve; safe to share between threads, since nothing changes after construction.

    Args:
        index: `schema.INDEX`, in any row order.
    """

    def __init__(self, index: pd.DataFrame) -> None:
        ids = np.unique(np.concatenate([index[ITEM_ID], index["neighbour_id"]]).astype(object))
        self._ids: list[str] = ids.tolist()
        # Sorted ids: the order of positions is the order of the catalogue, so ties fall as they do offline.
        self._position = {item: place for place, item in enumerate(self._ids)}
        ordered = index.sort_values([ITEM_ID, "rank"], kind="stable", ignore_index=True)
        rows = pd.Index(ids).get_indexer(pd.Index(ordered[ITEM_ID].astype(object)))
        places = pd.Index(ids).get_indexer(pd.Index(ordered["neighbour_id"].astype(object)))
        bounds = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(ids)))]).tolist()
        scores = ordered["score"].to_numpy(dtype=np.float32)
        self._neighbours = Neighbours(bounds, places.astype(np.int32), scores)

    def recommend(self, history: Sequence[str], *, top_k: int, last_m: int = 0, decay: float = 1.0) -> list[Scored]:
        """Rank the neighbours of a user's last items.

        Args:
            history: Item ids, oldest first. One that the index does not know counts as a place in the query,
                as it does offline, and adds nothing.
            top_k: Longest list, >= 1.
            last_m: Query length M, 0 = the whole history.
            decay: In (0, 1].

        Returns:
            At most `top_k` items, best first.

        Raises:
            ParamsError: An option is out of range, or `history` is one text or holds what is no text.
        """
        if isinstance(history, str | bytes):
            raise ParamsError(
                "lookup history", f"is the text {history!r}", f"a list of item ids, such as [{history!r}]"
            )
        for item in history:
            if not isinstance(item, str):
                found = f"holds {item!r}, of type {type(item).__name__}"
                raise ParamsError("lookup history", found, f"item ids, which are texts, such as {str(item)!r}")
        check_number("lookup top_k", top_k, minimum=1, whole=True)
        check_number("lookup last_m", last_m, minimum=0, whole=True)
        if not 0.0 < decay <= 1.0:
            raise ParamsError("lookup decay", f"is {decay!r}", "a number in (0, 1]")
        places = [self._position.get(item) for item in history]
        unwanted = np.array([place for place in places if place is not None], np.int64)
        query = places[-last_m:] if last_m else places
        items, scores = best(
            self._neighbours, query, decay=decay, top_k=top_k, keep=lambda found: ~np.isin(found, unwanted)
        )
        return [Scored(self._ids[item], score) for item, score in zip(items, scores, strict=True)]


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
        keep: Which of some places, ascending, may be recommended: bool, same shape.

    Returns:
        Places and float32 scores of at most `top_k` items, best first.
    """
    found, gains = _gains(neighbours, query, decay)
    if not found.size:
        return [], []
    candidates, scores = _sums(found, gains, len(neighbours.bounds) - 1)
    kept = (scores > 0) & keep(candidates)
    candidates, scores = candidates[kept], scores[kept]
    if scores.size > top_k:
        least = np.partition(scores, -top_k)[-top_k]
        candidates, scores = candidates[scores >= least], scores[scores >= least]  # all that tie stay
    order = np.lexsort((candidates, -scores))[:top_k]
    return candidates[order].tolist(), scores[order].tolist()


def _gains(neighbours: Neighbours, query: Sequence[int | None], decay: float) -> tuple[Array, Array]:
    """Return the neighbours of all query items and what each adds, float64, the most recent item first."""
    items: list[Array] = []
    gains: list[Array] = []
    weight = 1.0
    for place in reversed(query):
        if place is not None:
            rows = slice(neighbours.bounds[place], neighbours.bounds[place + 1])
            items.append(neighbours.items[rows])
            gains.append(np.multiply(neighbours.scores[rows], weight, dtype=np.float64))
        weight *= decay
    if not items:
        return np.empty(0, np.int32), np.empty(0)
    return np.concatenate(items), np.concatenate(gains)


def _sums(found: Array, gains: Array, n_items: int) -> tuple[Array, Array]:
    """Sum gains by item in the order given; return items ascending and float32 sums.

    `bincount` adds one after the other, which a pairwise sum would not. A table of all items is the fastest
    unless the catalogue is far larger than what was found.
    """
    if n_items <= 64 * found.size + 4096:
        sums = np.bincount(found, weights=gains)
        items = np.flatnonzero(sums)
        return items, sums[items].astype(np.float32)
    items, inverse = np.unique(found, return_inverse=True)
    return items, np.bincount(inverse, weights=gains).astype(np.float32)
