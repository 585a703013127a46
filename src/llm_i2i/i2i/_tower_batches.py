"""Options and batches of YoutubeDNN's training; no torch here."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from llm_i2i.arrays import Array
from llm_i2i.errors import ParamsError
from llm_i2i.i2i._similar import check_number
from llm_i2i.i2i.user_items import UserItems


@dataclass(frozen=True)
class TowerOptions:
    """Options of one training, checked; their values stand in params.yaml alone.

    Attributes:
        factors: Width of the vectors, >= 1.
        hidden: Widths of the hidden layers; empty = one linear layer.
        epochs: Passes over the interactions at most, >= 1.
        batch_size: Targets per step, >= 1.
        negatives: Sampled classes per step, shared by the batch, >= 1.
        sampling_exponent: Classes are drawn as (users of the item) ^ this, >= 0; log Q corrects for it.
        temperature: > 0, divides the cosines.
        learning_rate: Adam's, > 0.
        max_history: Items of a history at most, >= 1.
        validation_share: In [0, 1), share of users who keep one item back to stop by; 0 = never stop early.
        patience: Epochs without improvement on them before training stops, >= 1.
        seed: Of weights, sampling and the validation slice.

    Raises:
        ParamsError: An option is out of range.
    """

    factors: int
    hidden: tuple[int, ...]
    epochs: int
    batch_size: int
    negatives: int
    sampling_exponent: float
    temperature: float
    learning_rate: float
    max_history: int
    validation_share: float
    patience: int
    seed: int

    def __post_init__(self) -> None:
        for name in ("factors", "epochs", "batch_size", "negatives", "max_history", "patience"):
            check_number(f"youtube_dnn {name}", getattr(self, name), minimum=1, whole=True)
        for width in self.hidden:
            check_number("youtube_dnn hidden", width, minimum=1, whole=True)
        check_number("youtube_dnn sampling_exponent", self.sampling_exponent, minimum=0.0)
        check_number("youtube_dnn seed", self.seed, minimum=0, whole=True)
        for name in ("temperature", "learning_rate"):
            number = getattr(self, name)
            check_number(f"youtube_dnn {name}", number)
            if number <= 0:
                raise ParamsError(f"youtube_dnn {name}", f"is {number!r}", "a number > 0")


class Batches:
    """Targets with a history each, and the classes of the sampled softmax.

    Args:
        user_items: Checked CSR (n_users, n_items).
        class_weights: float64 (n_items,) >= 0, Q up to a factor.
        options: batch_size, negatives, max_history and the seed of the order and all draws.
    """

    def __init__(self, user_items: UserItems, class_weights: Array, options: TowerOptions) -> None:
        self.matrix, self.options = user_items, options
        self.bounds = user_items.indptr.astype(np.int64)
        lengths = np.diff(self.bounds)
        user_of = np.repeat(np.arange(len(lengths)), lengths)
        self.targets = np.flatnonzero(lengths[user_of] >= 2)  # places in `indices`
        self.user_of = user_of
        self.cumulative = np.cumsum(class_weights / class_weights.sum())
        with np.errstate(divide="ignore"):
            log_expected = np.log(options.negatives * class_weights / class_weights.sum())
        self.log_expected = log_expected.astype(np.float32)
        self.generator = np.random.default_rng([options.seed, 2])

    def __len__(self) -> int:
        """Return the number of batches per epoch."""
        return math.ceil(len(self.targets) / self.options.batch_size)

    def __iter__(self) -> Iterator[tuple[Array, Array, Array, Array]]:
        """Yield (history items, offsets, targets, classes), int64, once over all targets in random order."""
        order = self.generator.permutation(self.targets)
        for first in range(0, len(order), self.options.batch_size):
            places = order[first : first + self.options.batch_size]
            items, offsets = self.histories(self.user_of[places], places)
            draws = np.searchsorted(self.cumulative, self.generator.random(self.options.negatives), side="right")
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
        if int(lengths.max()) > self.options.max_history:  # a random subset of each long history
            shuffled = np.lexsort((self.generator.random(len(place)) + ~keep, row))
            within = np.arange(len(place)) - (ends - lengths)[row]
            chosen = np.zeros(len(place), dtype=np.bool_)
            chosen[shuffled] = within < self.options.max_history
            keep &= chosen
        sizes = np.bincount(row[keep], minlength=len(users))
        offsets = np.cumsum(sizes) - sizes
        items = self.matrix.indices[place[keep]].astype(np.int64)
        return items, offsets
