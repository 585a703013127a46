"""Recommendations online: a user's last items times their neighbours, from an index held in memory.

The same numbers in the same order as `llm_i2i.i2i.recommend`, without numba and for one user at a time:
score(candidate) = sum over the last M history items of decay^age x similarity, added in float64 from the most
recent item on, compared as float32, ties by item id.
"""

from collections.abc import Sequence
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
        neighbours = pd.Index(ids).get_indexer(pd.Index(ordered["neighbour_id"].astype(object)))
        self._bounds = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(ids)))]).tolist()
        self._neighbours = neighbours.astype(np.int64)
        self._scores = ordered["score"].to_numpy(dtype=np.float32).astype(np.float64)

    def recommend(
        self, history: Sequence[str], *, top_k: int, last_m: int = 0, decay: float = 1.0
    ) -> list[Scored]:
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
            ParamsError: An option is out of range.
        """
        check_number("lookup top_k", top_k, minimum=1, whole=True)
        check_number("lookup last_m", last_m, minimum=0, whole=True)
        if not 0.0 < decay <= 1.0:
            raise ParamsError("lookup decay", f"is {decay!r}", "a number in (0, 1]")
        found, gains = self._gains(history[-last_m:] if last_m else history, decay)
        if not found.size:
            return []
        candidates, scores = _sums(found, gains, len(self._ids))
        known = (self._position.get(item) for item in history)
        unwanted = np.fromiter((place for place in known if place is not None), np.int64)
        kept = (scores > 0) & ~np.isin(candidates, unwanted)
        candidates, scores = candidates[kept], scores[kept]
        if scores.size > top_k:
            least = np.partition(scores, -top_k)[-top_k]
            candidates, scores = candidates[scores >= least], scores[scores >= least]  # all that tie stay
        order = np.lexsort((candidates, -scores))[:top_k]
        return [Scored(self._ids[candidates[n]], float(scores[n])) for n in order]

    def _gains(self, query: Sequence[str], decay: float) -> tuple[Array, Array]:
        """Return the neighbours of all query items, int64, and what each adds, the most recent item first."""
        neighbours: list[Any] = []
        gains: list[Any] = []
        weight = 1.0
        for item in reversed(query):
            place = self._position.get(item)
            if place is not None:
                rows = slice(self._bounds[place], self._bounds[place + 1])
                neighbours.append(self._neighbours[rows])
                gains.append(weight * self._scores[rows])
            weight *= decay
        if not neighbours:
            return np.empty(0, np.int64), np.empty(0)
        return np.concatenate(neighbours), np.concatenate(gains)


def _sums(found: Array, gains: Array, n_items: int) -> tuple[Array, Array]:
    """Sum gains by item in the order given; return items ascending, int64, and float32 sums.

    `bincount` adds one after the other, which a pairwise sum would not. A table of all items is the fastest
    unless the catalogue is far larger than what was found.
    """
    if n_items <= 64 * found.size + 4096:
        sums = np.bincount(found, weights=gains)
        items = np.flatnonzero(sums)
        return items, sums[items].astype(np.float32)
    items, inverse = np.unique(found, return_inverse=True)
    return items, np.bincount(inverse, weights=gains).astype(np.float32)
