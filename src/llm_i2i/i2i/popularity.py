"""Popularity: how many users took each item, the control without any personal part."""

from typing import Any

import numpy as np

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
