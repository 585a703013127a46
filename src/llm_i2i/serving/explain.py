"""Why an item is recommended: what each item of the history adds, and how much of that is owed to synthetic pairs."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from llm_i2i.neighbours import Neighbours
from llm_i2i.serving.flat import FlatIndex, Takers
from llm_i2i.serving.messages import Why


def explain(index: FlatIndex, neighbours: Neighbours, query: Sequence[int | None], item: int) -> list[Why]:
    """What each item of a query adds to a recommended item's score, most first.

    Args:
        index: The version that recommends.
        neighbours: Of the link that recommends, `index.index` or `index.text`.
        query: Places of the items, oldest first; None = unknown.
        item: Place of the recommended item.
    """
    edges: dict[int, _Edge] = {}
    gains: dict[int, float] = {}
    weight = 1.0
    for place in reversed(query):
        edge = None if place is None else _edge(neighbours, place, item)
        if place is not None and edge is not None:
            edges[place] = edge
            gains[place] = gains.get(place, 0.0) + weight * edge.score
        weight *= index.decay
    most_first = sorted(gains, key=lambda place: (-gains[place], place))
    return [_why(index, place, item, gains[place], edges[place]) for place in most_first]


class _Edge(NamedTuple):
    score: float
    rank: int  # from 1


def _why(index: FlatIndex, place: int, item: int, gain: float, edge: _Edge) -> Why:
    users, synthetic = _supporters(index.takers, place, item) if index.takers else (None, None)
    real = _edge(index.real, place, item) if index.real else None
    return {
        "item_id": index.item_id(place),
        "title": index.title(place) or None,
        "contribution": gain,
        "score": edge.score,
        "rank": edge.rank,
        "users": users,
        "synthetic_users": synthetic,
        "real_score": real.score if real else None,
        "real_rank": real.rank if real else None,
    }


def _edge(neighbours: Neighbours, place: int, item: int) -> _Edge | None:
    """From an item to one of its neighbours; None if it is none."""
    start, end = neighbours.bounds[place], neighbours.bounds[place + 1]
    found = np.flatnonzero(neighbours.items[start:end] == item)
    return _Edge(float(neighbours.scores[start + found[0]]), int(found[0]) + 1) if found.size else None


def _supporters(takers: Takers, one: int, other: int) -> tuple[int, int]:
    """How many users took both of two items really, and how many with at least one of them by a synthetic pair."""
    few, many = sorted(
        (slice(takers.bounds[place], takers.bounds[place + 1]) for place in (one, other)),
        key=lambda part: part.stop - part.start,
    )
    if few.start == few.stop:
        return 0, 0
    at = np.searchsorted(takers.numbers[many], takers.numbers[few]).clip(max=many.stop - many.start - 1)
    both = takers.numbers[many][at] == takers.numbers[few]
    synthetic = (takers.synthetic[many][at] | takers.synthetic[few])[both]
    return int(synthetic.size - synthetic.sum()), int(synthetic.sum())
