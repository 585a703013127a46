"""YoutubeDNN candidate generation: a user is a network over the mean of the items taken; lists from item vectors.

Source: Covington, Adams and Sargin, "Deep Neural Networks for YouTube Recommendations", RecSys 2016, section 3;
sampled softmax: Jean et al., arXiv:1412.2007.

Differs from the paper: histories and targets are any two parts of a user's items, not past and future, as
interaction matrices carry no order; one table holds an item's input and output vector, and both vectors
have length 1 before they meet, so that the cosine of two items is what training shaped; there are no
features besides the items.
"""

import numpy as np

from llm_i2i.errors import DataError, ParamsError
from llm_i2i.i2i._similar import Similar, check_number
from llm_i2i.i2i._tower_batches import Batches
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
