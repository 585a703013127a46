"""A slice of the training rows that tells a trained model when to stop."""

from dataclasses import dataclass

import numpy as np

from llm_i2i.arrays import Array
from llm_i2i.errors import ParamsError
from llm_i2i.i2i._similar import check_number
from llm_i2i.i2i.user_items import UserItems

BLOCK_CELLS = 1 << 24  # scores of one block of users: 64 MiB of float32


@dataclass(frozen=True)
class HeldOut:
    """Training rows kept for validation: user `users[n]` took `items[n]`, which `rest` does not hold.

    Attributes:
        rest: CSR (n_users, n_items) without these rows.
        users: int64 (n,), ascending, unique.
        items: int64 (n,).
    """

    rest: UserItems
    users: Array
    items: Array

    def ndcg(self, user_vectors: Array, item_vectors: Array) -> float:
        """Return the mean of 1 / log2(1 + rank) of the held-out items among all the user did not take.

        No cut-off: smoother on few rows than a metric at 10. Ties count half.

        Args:
            user_vectors: float32 (n, width), those of `users`.
            item_vectors: float32 (n_items, width); a user's score of an item is their inner product.
        """
        total, height = 0.0, max(1, BLOCK_CELLS // len(item_vectors))
        for first in range(0, len(self.users), height):
            part = slice(first, first + height)
            scores = user_vectors[part] @ item_vectors.T
            target = scores[np.arange(len(scores)), self.items[part], None].copy()
            rows = self.rest[self.users[part]].tocoo()
            scores[rows.coords[0], rows.coords[1]] = -np.inf
            tied = (scores == target).sum(axis=1) - 1
            rank = 1 + (scores > target).sum(axis=1) + tied / 2
            total += float((1.0 / np.log2(1.0 + rank)).sum())
        return total / len(self.users)


def hold_out(user_items: UserItems, *, share: float, seed: int) -> HeldOut | None:
    """Keep one interaction of each of a seeded sample of users.

    Args:
        user_items: Checked CSR (n_users, n_items).
        share: In [0, 1): share of the users with at least two items.
        seed: Of the sample.

    Returns:
        The slice, or None if it would be empty (share 0, or too few users).

    Raises:
        ParamsError: `share` is out of range.
    """
    check_number("validation_share", share, minimum=0.0)
    if share >= 1.0:
        raise ParamsError("validation_share", f"is {share!r}", "a number in [0, 1)")
    lengths = np.diff(user_items.indptr)
    able = np.flatnonzero(lengths >= 2)
    n = round(share * len(able))
    if n == 0:
        return None
    generator = np.random.default_rng([seed, 1])
    users = np.sort(generator.choice(able, n, replace=False)).astype(np.int64)
    places = user_items.indptr[users] + (generator.random(n) * lengths[users]).astype(np.int64)
    rest = user_items.copy()
    rest.data[places] = 0.0
    rest.eliminate_zeros()
    return HeldOut(rest, users, user_items.indices[places].astype(np.int64))


@dataclass
class Patience:
    """Counts checks without a new best.

    Attributes:
        limit: Checks without improvement after which training stops.
        best: Best value so far.
        best_epoch: Its epoch, 0 = none yet.
        waited: Checks since then.
    """

    limit: int
    best: float = -np.inf
    best_epoch: int = 0
    waited: int = 0

    def improved(self, value: float, epoch: int) -> bool:
        """Take one check's value; tell whether it is the best so far."""
        if value > self.best:
            self.best, self.best_epoch, self.waited = value, epoch, 0
            return True
        self.waited += 1
        return False

    @property
    def over(self) -> bool:
        """Whether training should stop."""
        return self.waited >= self.limit
