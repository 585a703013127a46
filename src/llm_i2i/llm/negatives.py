"""What a discriminator learns from: whose histories, up to which moment, and the items to answer No to.

Kinds of negatives. `random`, as in the paper: uniform over the catalogue. `popularity`: by training count to a power,
so that being frequent says nothing about the answer. What the generator nearly gets right is judged by stage judge.

Only the user's *training* items are excluded. Validation and test items are not looked at: if they never occurred as
a No, their absence would leak the answer.
"""

from collections.abc import Callable

import numpy as np

from llm_i2i.arrays import FloatArray, IntArray
from llm_i2i.catalogue import sample_keys
from llm_i2i.errors import DataError
from llm_i2i.params import Negatives, TrainDiscriminatorParams

# (user's training items, how many, random state) to distinct items, sorted.
Sampler = Callable[[IntArray, int, np.random.Generator], IntArray]


def n_positives(params: TrainDiscriminatorParams) -> int:
    """How many of the items taken next are asked about at a moment, at most."""
    return max(1, params.candidates_per_history // (1 + params.negatives_per_positive))


def draw_moment(items: IntArray, params: TrainDiscriminatorParams, rng: np.random.Generator) -> int:
    """Draw after how many items to ask; `n_positives` items follow wherever the history is long enough.

    Args:
        items: A user's training items, at least two.
        params: Section train_discriminator.
        rng: Random state.
    """
    return int(rng.integers(1, max(2, len(items) - n_positives(params) + 1)))


def held_out_and_fit(
    by_user: dict[str, IntArray], params: TrainDiscriminatorParams, *, seed: int
) -> tuple[list[str], list[str]]:
    """Users held out and users to train on, both seeded samples.

    Args:
        by_user: Users' training items; users with fewer than two are left out.
        params: Section train_discriminator.
        seed: Of both samples.

    Raises:
        DataError: Too few users to train and to hold some out.
    """
    users = [user for user, items in by_user.items() if len(items) >= 2]
    order = [users[i] for i in np.random.default_rng(seed).permutation(len(users))]
    size = round(params.held_out_share * len(order))
    if params.max_histories:
        size = min(size, max(1, round(params.held_out_share * params.max_histories / (1 - params.held_out_share))))
    held_out, rest = sorted(order[:size]), sorted(order[size:])
    if not held_out or not rest:
        raise DataError(
            "train_discriminator",
            f"{len(users)} users with at least two training interactions",
            f"enough to hold {params.held_out_share:.0%} of them out and to train on the rest",
        )
    return held_out, sample_keys(rest, params.max_histories, seed=seed)


def negative_sampler(
    kind: Negatives, sequences: dict[str, IntArray], n_items: int, params: TrainDiscriminatorParams
) -> Sampler:
    """A sampler of distinct items outside a user's own training items.

    Args:
        kind: Kind of negatives.
        sequences: All users' training items; counts are of these alone.
        n_items: Catalogue size.
        params: `popularity_exponent`.
    """
    if kind == "random":
        return lambda own, size, rng: random_negatives(own, n_items, size, rng)
    items = np.concatenate(list(sequences.values()))
    weights = np.bincount(items, minlength=n_items).astype(np.float64) ** params.popularity_exponent
    return lambda own, size, rng: weighted_negatives(own, weights, size, rng)


def random_negatives(own: IntArray, n_items: int, size: int, rng: np.random.Generator) -> IntArray:
    """Distinct items, uniform over the catalogue, outside `own`.

    Args:
        own: The user's training items.
        n_items: Catalogue size.
        size: How many; fewer come if the catalogue does not have them.
        rng: Random state.
    """
    open_items = np.setdiff1d(np.arange(n_items), own, assume_unique=False)
    return np.sort(rng.choice(open_items, size=min(size, len(open_items)), replace=False))


def weighted_negatives(own: IntArray, weights: FloatArray, size: int, rng: np.random.Generator) -> IntArray:
    """Distinct items outside `own`, drawn by weight without replacement.

    Args:
        own: The user's training items.
        weights: float64 (n_items,), at least 0; an item of weight 0 is drawn only when no other is left.
        size: How many; fewer come if the catalogue does not have them.
        rng: Random state.
    """
    # The largest of u^(1/w) are a weighted draw without replacement (Efraimidis and Spirakis 2006); here as
    # log(u) / w, in which a weight of 0 gives minus infinity and equal ones a plain uniform draw.
    with np.errstate(divide="ignore"):
        key = np.log(1.0 - rng.random(len(weights))) / weights
    # Among items of weight 0 chance decides, not their order in the catalogue.
    tie = rng.random(len(weights))
    order = np.lexsort((tie, -key))
    taken = np.isin(order, own)
    return np.sort(order[~taken][:size])
