"""Always k items, or a reason: the index, then nearest items by text, then the most popular items.

What the history holds, what the client excludes and what the filters refuse is recommended by no link.
"""

from collections.abc import Iterable

import numpy as np

from llm_i2i.arrays import Array
from llm_i2i.errors import DataError
from llm_i2i.neighbours import Neighbours, best
from llm_i2i.serving.explain import explain
from llm_i2i.serving.flat import FlatIndex
from llm_i2i.serving.messages import Link, Query, Ranked, Recommended

LEAST_CHUNK = 256


def answer(index: FlatIndex, query: Query) -> Ranked:
    """Recommend from one version of the index.

    The first link is the offline ranking, to the last bit. A link is asked only for what those before it leave open.

    Raises:
        DataError: A filter names a column that the catalogue does not have.
    """
    places = [index.place(item) for item in query.history]
    asked = places[-index.last_m :] if index.last_m else places
    wanted = _Wanted(index, query, places)
    found: list[Recommended] = []
    links: list[tuple[Link, Neighbours]] = [("index", index.index), ("text", index.text)]
    for source, neighbours in links:
        if len(found) < query.k:
            items, scores = best(neighbours, asked, decay=index.decay, top_k=query.k - len(found), keep=wanted.mask)
            wanted.refuse(items)
            more = _recommended(index, items, scores, source)
            if query.explain:
                for item, told in zip(items, more, strict=True):
                    told["why"] = explain(index, neighbours, asked, item)
            found += more
    if len(found) < query.k:
        items, scores = _popular(index, wanted, query.k - len(found))
        more = _recommended(index, items, scores, "popularity")
        found += [{**told, "why": []} for told in more] if query.explain else more
    reason = None
    if len(found) < query.k:  # popularity knows the whole catalogue: there is nothing else
        reason = f"{len(found)} of {index.n_items} items pass the filters and are neither excluded nor in the history"
    return {"items": found, "reason": reason, "version": index.version}


class _Wanted:
    """Which items a query allows."""

    def __init__(self, index: FlatIndex, query: Query, history: list[int | None]) -> None:
        self._refused = np.zeros(index.n_items, np.bool_)
        self.refuse(place for place in (*history, *map(index.place, query.exclude)) if place is not None)
        self._filters: list[tuple[Array, list[int]]] = []
        for name, values in query.filters.items():
            if name not in index.columns:
                raise DataError("filters", f"no column {name!r}", f"one of {', '.join(index.columns)}")
            codes, column = index.columns[name]
            self._filters.append((column, [codes[value] for value in values if value in codes]))

    def mask(self, places: Array) -> Array:
        """Which of some places are allowed, bool of the same shape."""
        allowed: Array = ~self._refused[places]
        for column, codes in self._filters:
            allowed &= np.isin(column[places], codes)
        return allowed

    def refuse(self, places: Iterable[int]) -> None:
        """From now on these are not allowed."""
        self._refused[list(places)] = True


def _popular(index: FlatIndex, wanted: _Wanted, k: int) -> tuple[list[int], list[float]]:
    """The k most popular items of those wanted; ever larger parts of the catalogue are searched."""
    items: list[int] = []
    scores: list[float] = []
    start, size = 0, LEAST_CHUNK
    while start < index.n_items and len(items) < k:
        part = slice(start, start + size)
        kept = np.flatnonzero(wanted.mask(index.popular_items[part]))[: k - len(items)]
        items += index.popular_items[part][kept].tolist()
        scores += index.popular_scores[part][kept].tolist()
        start, size = start + size, size * 4
    return items, scores


def _recommended(index: FlatIndex, items: list[int], scores: list[float], source: Link) -> list[Recommended]:
    return [
        {"item_id": index.item_id(item), "title": index.title(item) or None, "score": score, "source": source}
        for item, score in zip(items, scores, strict=True)
    ]
