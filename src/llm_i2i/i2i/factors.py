"""Item-to-item lists from item vectors."""

from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from llm_i2i.errors import TrainingError
from llm_i2i.i2i._kernels import dense_rows
from llm_i2i.i2i._similar import Similar, empty_rows, to_csr

Factors = np.ndarray[Any, np.dtype[np.float32]]
BLOCK_CELLS = 1 << 24  # scores of one block of item pairs: 64 MiB of float32


def diverged(model: str, where: str, found: str, learning_rate: float) -> TrainingError:
    """What to tell of a training that left the finite numbers.

    Args:
        model: Such as `bpr`.
        where: Epoch or step.
        found: What is no finite number.
        learning_rate: Its own.
    """
    return TrainingError(
        f"{model}, {where}",
        f"{found} at learning rate {learning_rate:g}: the training has diverged",
        "finite numbers",
        f"lower train_i2i.{model}.learning_rate, to a tenth say",
    )


def cosine_top_k(vectors: Factors, *, top_k: int) -> Similar:
    """Return the `top_k` items of highest positive cosine for each item; zero vectors have none.

    Args:
        vectors: float32 (n_items, factors).
        top_k: Neighbours per row at most.
    """
    norms = np.linalg.norm(vectors.astype(np.float64), axis=1)
    unit = np.divide(vectors, norms[:, None], where=norms[:, None] > 0, out=np.zeros(vectors.shape))
    unit = np.ascontiguousarray(unit, dtype=np.float32)
    n_items = len(unit)
    rows = empty_rows(n_items, top_k)
    height = max(1, BLOCK_CELLS // n_items)
    # BLAS may add in another order with another number of threads.
    with threadpool_limits(limits=1, user_api="blas"):
        for first in range(0, n_items, height):
            dense_rows(first, unit[first : first + height] @ unit.T, rows)
    return to_csr(rows)
