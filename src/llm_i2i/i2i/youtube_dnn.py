"""YoutubeDNN candidate generation: a user is a network over the mean of the items taken; lists from item vectors.

Source: Covington, Adams and Sargin, "Deep Neural Networks for YouTube Recommendations", RecSys 2016, section 3;
sampled softmax: Jean et al., arXiv:1412.2007.

Differs from the paper: histories and targets are any two parts of a user's items, not past and future, as
interaction matrices carry no order; one table holds an item's input and output vector, and both vectors
have length 1 before they meet, so that the cosine of two items is what training shaped; there are no
features besides the items.
"""

from typing import Any

import numpy as np

from llm_i2i.errors import DataError, needs_extra
from llm_i2i.i2i._similar import Similar, check_number
from llm_i2i.i2i._tower_batches import Batches, TowerOptions
from llm_i2i.i2i.factors import cosine_top_k, diverged
from llm_i2i.i2i.hold_out import hold_out
from llm_i2i.i2i.user_items import UserItems, check_user_items


def youtube_dnn(user_items: UserItems, *, top_k: int, **options: Any) -> Similar:
    """Train the two-tower softmax and return the cosines of its item vectors; same bits for any thread count.

    Each interaction is a target once per epoch, its history a sample of the user's other items.

    Args:
        user_items: Binary CSR (n_users, n_items).
        top_k: Neighbours per row at most, >= 1; more than n_items - 1 means all.
        **options: The fields of `TowerOptions`, all of them.

    Returns:
        CSR (n_items, n_items), float32 in (0, 1], as of `swing`; items nobody took have no neighbours.

    Raises:
        DataError: Not a binary, non-empty matrix, or no user has two items.
        TrainingError: The training diverges.
        ParamsError: An option is out of range.
    """
    check_number("youtube_dnn top_k", top_k, minimum=1, whole=True)
    checked = TowerOptions(**{**options, "hidden": tuple(options["hidden"])})
    matrix = check_user_items(user_items)
    if int(np.diff(matrix.indptr).max()) < 2:
        raise DataError("youtube_dnn", "no user has two items", "a history and a target")
    held = hold_out(matrix, share=checked.validation_share, seed=checked.seed)
    counts = np.bincount(matrix.indices, minlength=matrix.shape[1])
    weights = counts**checked.sampling_exponent * (counts > 0)
    batches = Batches(matrix if held is None else held.rest, weights, checked)
    with needs_extra("pipeline", "youtube_dnn"):
        from llm_i2i.i2i._tower import train_tower  # noqa: PLC0415  # torch costs seconds, here alone

    vectors = train_tower(batches, held, checked)
    if not np.isfinite(vectors).all():
        raise diverged("youtube_dnn", "at the end", "vectors that are not finite", checked.learning_rate)
    return cosine_top_k(vectors * (counts > 0)[:, None], top_k=top_k)
