"""Whose histories the discriminator learns from, and up to which moment."""

import numpy as np

from llm_i2i.arrays import IntArray
from llm_i2i.errors import DataError
from llm_i2i.llm.histories import sample_keys
from llm_i2i.params import TrainDiscriminatorParams


def n_positives(params: TrainDiscriminatorParams) -> int:
    """Items taken next that are asked about at a moment, at most."""
    return max(1, params.candidates_per_history // (1 + params.negatives_per_positive))


def draw_moment(items: IntArray, params: TrainDiscriminatorParams, rng: np.random.Generator) -> int:
    """A number of items after which to ask, so early that `n_positives` follow where there are so many.

    Args:
        items: A user's training items, at least two.
        params: Section train_discriminator.
        rng: Random state.
    """
    return int(rng.integers(1, max(2, len(items) - n_positives(params) + 1)))


def held_out_and_fit(
    by_user: dict[str, IntArray], params: TrainDiscriminatorParams, *, seed: int
) -> tuple[list[str], list[str]]:
    """Users held out (at most as many as are trained on) and users to train on, both seeded samples.

    Args:
        by_user: Users' training items; users of fewer than two are left aside.
        params: Section train_discriminator.
        seed: Of both samples.

    Raises:
        DataError: Too few users to train and to hold some out.
    """
    users = [user for user, items in by_user.items() if len(items) >= 2]
    order = [users[i] for i in np.random.default_rng(seed).permutation(len(users))]
    size = round(params.held_out_share * len(order))
    if params.max_histories:
        size = min(
            size, max(1, round(params.held_out_share * params.max_histories / (1 - params.held_out_share)))
        )
    held_out, rest = sorted(order[:size]), sorted(order[size:])
    if not held_out or not rest:
        raise DataError(
            "train_discriminator",
            f"{len(users)} users with at least two training interactions",
            f"enough to hold {params.held_out_share:.0%} of them out and to train on the rest",
        )
    return held_out, sample_keys(rest, params.max_histories, seed=seed)
