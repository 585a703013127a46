"""BM25 item-kNN: items are documents, their users are terms; the strongest plain baseline on ARD."""

import numpy as np

from llm_i2i.arrays import Array
from llm_i2i.i2i._similar import Similar, check_number, overlap
from llm_i2i.i2i.user_items import UserItems, check_user_items, transposed


def bm25(user_items: UserItems, *, top_k: int, k1: float, b: float) -> Similar:
    """Compute inner products of BM25-weighted item vectors.

    weight(i, u) = idf_u (k1 + 1) / (k1 (1 - b + b |U_i| / mean |U|) + 1), idf_u = ln(n_items / (1 + |I_u|)):
    the weighting of implicit's BM25Recommender on binary data. The mean is over all n_items.

    Args:
        user_items: Binary CSR (n_users, n_items).
        top_k: Neighbours per row at most, >= 1; more than n_items - 1 means all.
        k1: >= 0, how slowly the item length saturates; 0 ignores it.
        b: In [0, 1], how much long items are damped.

    Returns:
        CSR (n_items, n_items), float32 > 0, as of `swing`.

    Raises:
        DataError: Not a binary, non-empty matrix.
        ParamsError: An option is out of range.
    """
    check_number("bm25 top_k", top_k, minimum=1, whole=True)
    matrix = check_user_items(user_items)
    item_users = transposed(matrix)
    gain, scale = weights(np.diff(matrix.indptr), np.diff(item_users.indptr), k1=k1, b=b)
    return overlap(matrix, item_users, user_gain=gain, item_scale=scale, top_k=top_k)


def weights(lengths: Array, n_users_of: Array, *, k1: float, b: float) -> tuple[Array, Array]:
    """Return what a user of both items adds, float64 (n_users,), and what an item's row is multiplied by, (n_items,).

    Args:
        lengths: int (n_users,), items of each user.
        n_users_of: int (n_items,), users of each item.
        k1: As of `bm25`.
        b: As of `bm25`.

    Raises:
        ParamsError: An option is out of range.
    """
    check_number("bm25 k1", k1, minimum=0.0)
    check_number("bm25 b", b, minimum=0.0)
    check_number("bm25 1 - b", 1.0 - b, minimum=0.0)
    n_users_of = n_users_of.astype(np.float64)
    idf: Array = np.log(len(n_users_of)) - np.log1p(lengths.astype(np.float64))
    length = 1.0 - b + b * n_users_of / n_users_of.mean()
    return idf**2, (k1 + 1.0) / (k1 * length + 1.0)
