"""Popularity: how many users took each item, the control without any personal part."""

from typing import Any

import numpy as np

from llm_i2i.arrays import Array
from llm_i2i.i2i._similar import Similar, check_number, empty_rows, to_csr
from llm_i2i.i2i.user_items import UserItems, check_user_items


def popularity(user_items: UserItems) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Count the users of each item.

    Args:
        user_items: Binary CSR (n_users, n_items).

    Returns:
        int64 (n_items,), 0 for an item nobody took.

    Raises:
        DataError: Not a binary, non-empty matrix.
    """
    matrix = check_user_items(user_items)
    return np.bincount(matrix.indices, minlength=matrix.shape[1]).astype(np.int64)


def popular_items(user_items: UserItems, *, top_k: int) -> Similar:
    """Give every item the same neighbours, the most popular items, so that popularity fits an index.

    Args:
        user_items: Binary CSR (n_users, n_items).
        top_k: Neighbours per row at most, >= 1; more than n_items - 1 means all.

    Returns:
        CSR (n_items, n_items), float32 user counts, as of `swing`. Items nobody took have these
        neighbours too, and are nobody's.

    Raises:
        DataError: Not a binary, non-empty matrix.
        ParamsError: `top_k` is out of range.
    """
    return of_counts(popularity(user_items), top_k=top_k)


def of_counts(counts: Array, *, top_k: int) -> Similar:
    """Do the same with the users of each item counted, int64 (n_items,).

    Raises:
        ParamsError: `top_k` is out of range.
    """
    check_number("popularity top_k", top_k, minimum=1, whole=True)
    items, scores, sizes = empty_rows(len(counts), top_k)
    best = np.argsort(-counts, kind="stable")[: items.shape[1] + 1]
    best = best[counts[best] > 0]
    for row in range(len(counts)):
        others = best[best != row][: items.shape[1]]
        items[row, : len(others)], scores[row, : len(others)] = others, counts[others]
        sizes[row] = len(others)
    return to_csr((items, scores, sizes))
