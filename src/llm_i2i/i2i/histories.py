"""Users' item histories as arrays, the query side of `recommend`."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from llm_i2i.i2i.user_items import item_positions
from llm_i2i.schema import ITEM_ID, POSITION, USER_ID

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Histories:
    """Item histories of users, oldest first: user n took `items[bounds[n]:bounds[n + 1]]`.

    Attributes:
        bounds: int64 (n_users + 1,).
        items: int32 (n,) item indices.
    """

    bounds: Array
    items: Array


def histories_of(users: pd.Series, interactions: pd.DataFrame, items: pd.DataFrame) -> Histories:
    """Return each user's items, oldest first; a user without interactions has an empty history.

    Args:
        users: Unique user ids, in the order wanted.
        interactions: `schema.INTERACTIONS`; other users' rows are ignored.
        items: `schema.ITEMS`.

    Raises:
        ArtifactError: An item is not in the catalogue.
    """
    rows = pd.Index(users).get_indexer(pd.Index(interactions[USER_ID]))
    wanted = rows >= 0
    rows, kept = rows[wanted], interactions.loc[wanted]
    taken = item_positions(kept[ITEM_ID], items[ITEM_ID], where="train or valid")
    order = np.lexsort((kept[POSITION].to_numpy(), rows))
    bounds = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(users)))])
    return Histories(bounds.astype(np.int64), taken[order].astype(np.int32))
