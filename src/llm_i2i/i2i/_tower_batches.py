"""The batches of YoutubeDNN's training."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from llm_i2i.arrays import Array
from llm_i2i.i2i.user_items import UserItems


class Batches:
    """Targets with a history each, and the classes of the sampled softmax.

    Args:
        user_items: Checked CSR (n_users, n_items).
        batch_size: Targets a batch.
        negatives: Classes drawn a batch, with replacement.
        max_history: Longest history.
        class_weights: float64 (n_items,) >= 0, Q up to a factor.
        seed: Of the order and all draws.
    """

    def __init__(
        self, user_items: UserItems, *, batch_size: int, negatives: int, max_history: int,
        class_weights: Array, seed: int,
    ) -> None:  # fmt: skip
        self.matrix, self.batch_size, self.negatives = user_items, batch_size, negatives
        self.max_history = max_history
        self.bounds = user_items.indptr.astype(np.int64)
        lengths = np.diff(self.bounds)
        user_of = np.repeat(np.arange(len(lengths)), lengths)
        self.targets = np.flatnonzero(lengths[user_of] >= 2)  # places in `indices`
        self.user_of = user_of
        self.cumulative = np.cumsum(class_weights / class_weights.sum())
        with np.errstate(divide="ignore"):
            log_expected = np.log(negatives * class_weights / class_weights.sum())
        self.log_expected = log_expected.astype(np.float32)
        self.generator = np.random.default_rng([seed, 2])

    def __len__(self) -> int:
        """Return the number of batches an epoch."""
        return math.ceil(len(self.targets) / self.batch_size)

    def __iter__(self) -> Iterator[tuple[Array, Array, Array, Array]]:
        """Yield (history items, offsets, targets, classes), int64, once over all targets in random order."""
        order = self.generator.permutation(self.targets)
        for first in range(0, len(order), self.batch_size):
            places = order[first : first + self.batch_size]
            items, offsets = self.histories(self.user_of[places], places)
            draws = np.searchsorted(self.cumulative, self.generator.random(self.negatives), side="right")
            classes = np.minimum(draws, len(self.cumulative) - 1)
            targets = self.matrix.indices[places].astype(np.int64)
            yield items, offsets, targets, classes

    def histories(self, users: Any, without: Any = None) -> tuple[Array, Array]:
        """Return the users' items laid end to end, less those at places `without`, and where each begins."""
        lengths = self.bounds[users + 1] - self.bounds[users]
        ends = np.cumsum(lengths)
        row = np.repeat(np.arange(len(users)), lengths)
        place = np.arange(ends[-1]) - (ends - lengths)[row] + self.bounds[users][row]
        keep = np.ones(len(place), dtype=np.bool_) if without is None else place != without[row]
        if int(lengths.max()) > self.max_history:  # a random subset of each long history
            shuffled = np.lexsort((self.generator.random(len(place)) + ~keep, row))
            within = np.arange(len(place)) - (ends - lengths)[row]
            chosen = np.zeros(len(place), dtype=np.bool_)
            chosen[shuffled] = within < self.max_history
            keep &= chosen
        sizes = np.bincount(row[keep], minlength=len(users))
        offsets = np.cumsum(sizes) - sizes
        items = self.matrix.indices[place[keep]].astype(np.int64)
        return items, offsets
