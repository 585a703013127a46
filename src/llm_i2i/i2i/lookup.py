"""Recommendations online, from an index held in memory: a user's last items times their neighbours."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from llm_i2i.errors import ParamsError
from llm_i2i.i2i._similar import check_number
from llm_i2i.neighbours import Neighbours, best
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
