"""Item-kNN: cosine of the items' user vectors, the first baseline."""

import numpy as np

from llm_i2i.arrays import Array
from llm_i2i.i2i._similar import Similar, check_number, overlap
from llm_i2i.i2i.user_items import UserItems, check_user_items, transposed


def item_knn(user_items: UserItems, *, top_k: int = 100, shrink: float = 0.0, wanted: Array | None = None) -> Similar:
    """Compute cosine similarities: |U_i ∩ U_j| / sqrt((shrink + |U_i|) (shrink + |U_j|)).

    Args:
        user_items: Binary CSR (n_users, n_items).
        top_k: Neighbours per row at most, >= 1; more than n_items - 1 means all.
        shrink: >= 0, holds back pairs of rare items, whose few users say little; 0 = plain cosine.
        wanted: bool (n_items,): the items whose rows are computed, all others' stay empty; None = all.

    Returns:
        CSR (n_items, n_items), float32 in (0, 1], as of `swing`.

    Raises:
        DataError: Not a binary, non-empty matrix.
        ParamsError: An option is out of range.
    """
    check_number("item_knn top_k", top_k, minimum=1, whole=True)
    matrix = check_user_items(user_items)
    item_users = transposed(matrix)
    gain, scale = weights(np.diff(matrix.indptr), np.diff(item_users.indptr), shrink=shrink)
    return overlap(matrix, item_users, user_gain=gain, item_scale=scale, top_k=top_k, wanted=wanted)


def weights(lengths: Array, n_users_of: Array, *, shrink: float = 0.0) -> tuple[Array, Array]:
    """Return what a user of both items adds, float64 (n_users,), and what an item's row is multiplied by, (n_items,).

    Args:
        lengths: int (n_users,), items of each user.
        n_users_of: int (n_items,), users of each item.
        shrink: As of `item_knn`.

    Raises:
        ParamsError: An option is out of range.
    """
    check_number("item_knn shrink", shrink, minimum=0.0)
    return np.ones(len(lengths)), 1.0 / np.sqrt(np.maximum(shrink + n_users_of.astype(np.float64), 1.0))
