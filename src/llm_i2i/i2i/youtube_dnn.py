"""YoutubeDNN candidate generation: a user is a network over the mean of the items taken; lists from item vectors.

Source: Covington, Adams and Sargin, "Deep Neural Networks for YouTube Recommendations", RecSys 2016, section 3;
sampled softmax: Jean et al., arXiv:1412.2007.

Differs from the paper: histories and targets are any two parts of a user's items, not past and future, as
interaction matrices carry no order; one table holds an item's input and output vector, and both vectors
have length 1 before they meet, so that the cosine of two items is what training shaped; there are no
features besides the items.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from llm_i2i.errors import DataError, ParamsError
from llm_i2i.i2i._similar import Array, Similar, check_number
from llm_i2i.i2i.factors import cosine_top_k
from llm_i2i.i2i.hold_out import hold_out
from llm_i2i.i2i.user_items import UserItems, check_user_items


def youtube_dnn(
    user_items: UserItems,
    *,
    factors: int = 64,
    hidden: tuple[int, ...] = (128,),
    epochs: int = 20,
    batch_size: int = 1024,
    negatives: int = 1024,
    sampling_exponent: float = 0.75,
    temperature: float = 0.1,
    learning_rate: float = 0.002,
    max_history: int = 50,
    validation_share: float = 0.02,
    patience: int = 3,
    top_k: int = 100,
    seed: int = 0,
) -> Similar:
    """Train the two-tower softmax and return the cosines of its item vectors; same bits for any thread count.

    Each interaction is a target once an epoch, its history a sample of the user's other items.

    Args:
        user_items: Binary CSR (n_users, n_items).
        factors: Width of the vectors, >= 1.
        hidden: Widths of the hidden layers; empty = one linear layer.
        epochs: Passes over the interactions at most, >= 1.
        batch_size: Targets a step, >= 1.
        negatives: Sampled classes a step, shared by the batch, >= 1.
        sampling_exponent: Classes are drawn as (users of the item) ^ this, >= 0; log Q corrects for it.
        temperature: > 0, divides the cosines.
        learning_rate: Adam's, > 0.
        max_history: Items of a history at most, >= 1.
        validation_share: In [0, 1), share of users who keep one item back to stop by; 0 = never stop early.
        patience: Epochs without improvement on them before training stops, >= 1.
        top_k: Neighbours a row at most, >= 1; more than n_items - 1 means all.
        seed: Of weights, sampling and the validation slice.

    Returns:
        CSR (n_items, n_items), float32 in (0, 1], as of `swing`; items nobody took have no neighbours.

    Raises:
        DataError: Not a binary, non-empty matrix, no user has two items, or training diverged.
        ParamsError: An option is out of range.
    """
    whole = {
        "factors": factors, "epochs": epochs, "batch_size": batch_size, "negatives": negatives,
        "max_history": max_history, "patience": patience, "top_k": top_k,
    }  # fmt: skip
    for name, value in whole.items():
        check_number(f"youtube_dnn {name}", value, minimum=1, whole=True)
    for width in hidden:
        check_number("youtube_dnn hidden", width, minimum=1, whole=True)
    check_number("youtube_dnn sampling_exponent", sampling_exponent, minimum=0.0)
    check_number("youtube_dnn seed", seed, minimum=0, whole=True)
    for name, number in {"temperature": temperature, "learning_rate": learning_rate}.items():
        check_number(f"youtube_dnn {name}", number)
        if number <= 0:
            raise ParamsError(f"youtube_dnn {name}", f"is {number!r}", "a number > 0")
    matrix = check_user_items(user_items)
    if int(np.diff(matrix.indptr).max()) < 2:
        raise DataError("youtube_dnn", "no user has two items", "a history and a target")
    held = hold_out(matrix, share=validation_share, seed=seed)
    counts = np.bincount(matrix.indices, minlength=matrix.shape[1])
    batches = Batches(
        matrix if held is None else held.rest,
        batch_size=batch_size,
        negatives=negatives,
        max_history=max_history,
        class_weights=counts**sampling_exponent * (counts > 0),
        seed=seed,
    )
    from llm_i2i.i2i._tower import Training, train_tower  # noqa: PLC0415  # torch costs seconds, here alone

    training = Training(factors, tuple(hidden), epochs, patience, learning_rate, temperature, seed)
    vectors = train_tower(batches, held, training)
    if not np.isfinite(vectors).all():
        raise DataError("youtube_dnn", "training diverged", fix="lower train_i2i.youtube_dnn.learning_rate")
    return cosine_top_k(vectors * (counts > 0)[:, None], top_k=top_k)


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
