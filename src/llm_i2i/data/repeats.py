"""The order of interactions in which repeated pairs and equal times lie side by side, on codes of identifiers."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Codes = NDArray[np.integer[Any]]
Order = NDArray[np.int64]


def in_pair_order(user: Codes, item: Codes, time: NDArray[np.int64]) -> tuple[Order, Mask, Mask]:
    """Sort by (user, item, time); equal rows keep their order.

    Args:
        user: Codes (n,); -1 = missing, a user of its own.
        item: The same of items.
        time: int64 (n,).

    Returns:
        Places of the rows, int64 (n,); which of the sorted rows repeat the pair of the one before; and which of these
        repeat its time, too.
    """
    pair = user.astype(np.int64) * (int(item.max(initial=0)) + 2) + item
    order = np.lexsort((time, pair))
    again = repeats(pair[order])
    return order, again, again & repeats(time[order])


def in_time_order(user: Codes, time: NDArray[np.int64]) -> Order:
    """Places of the rows sorted by (user, time), int64 (n,); equal rows keep their order."""
    if not len(user):
        return np.empty(0, np.int64)
    first, span = int(time.min()), int(time.max()) - int(time.min()) + 1
    if (int(user.max()) + 1) * span >= 1 << 63:
        return np.lexsort((time, user))
    return np.argsort(user * np.int64(span) + (time - first), kind="stable")  # one key takes half the time of two


def repeats(values: NDArray[Any]) -> Mask:
    """Which values equal the one before, bool (n,)."""
    found = np.zeros(len(values), dtype=np.bool_)
    np.equal(values[1:], values[:-1], out=found[1:])
    return found
