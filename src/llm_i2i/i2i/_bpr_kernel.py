"""Compiled BPR: sequential stochastic gradient steps, so the same bits for any number of threads.

Between machines bits may differ: the order of the sum in `_margin` follows the width of the CPU's vectors.
"""
# ruff: noqa: PLR0913, PLR0917  # inner loops: compiled code takes plain arrays, not options
# mypy: disable-error-code="arg-type,return-value"
# (numba compiles int and np.int64, float and np.float32 alike)

import math

import numpy as np

from llm_i2i.arrays import Array
from llm_i2i.i2i._jit import jit

DRAWN = 1024  # triples drawn ahead of their steps: the CPU can then load their factors early
TRIES = 1000  # draws of a negative before its triple is given up


@jit()
def _next(state: Array) -> int:
    """Advance the xorshift64* generator in `state` (one uint64) and return 31 random bits as int64."""
    x = state[0]
    x ^= x >> np.uint64(12)
    x ^= x << np.uint64(25)
    x ^= x >> np.uint64(27)
    state[0] = x
    return np.int64((x * np.uint64(2685821657736338717)) >> np.uint64(33))


@jit()
def _below(state: Array, n: int) -> int:
    """Return a random int64 in [0, n), n < 2^31; the bias is below n / 2^31."""
    return (_next(state) * np.int64(n)) >> np.int64(31)


@jit()
def _contains(values: Array, first: int, last: int, wanted: int) -> bool:
    """Tell whether ascending values[first:last] hold `wanted`."""
    while first < last:
        middle = (first + last) >> 1
        if values[middle] < wanted:
            first = middle + 1
        elif values[middle] > wanted:
            last = middle
        else:
            return True
    return False


@jit(reassociate=True)
def _margin(user_factors: Array, item_factors: Array, u: int, i: int, j: int) -> float:
    """Return p_u . (q_i - q_j) in float32; a plain loop of ordered adds would cost three times as much."""
    total = np.float32(0.0)
    for f in range(user_factors.shape[1]):
        total += user_factors[u, f] * (item_factors[i, f] - item_factors[j, f])
    return total


@jit()
def _draw(
    user_of: Array, bounds: Array, taken: Array, n_items: int, by_count: bool, state: Array, triples: Array
) -> None:
    """Fill int32 (n, 3) with (user, item taken, item not taken); user -1 where no item is left to draw."""
    nnz = taken.shape[0]
    for n in range(triples.shape[0]):
        sample = _below(state, nnz)
        u = user_of[sample]
        first, last = bounds[u], bounds[u + 1]
        triples[n, 1] = taken[sample]
        if last - first >= n_items:
            triples[n, 0] = -1
            continue
        triples[n, 0] = -1
        for _ in range(TRIES):  # by count, items that others took may all be the user's own
            j = np.int64(taken[_below(state, nnz)]) if by_count else _below(state, n_items)
            if not _contains(taken, first, last, j):
                triples[n, 0] = u
                break
        triples[n, 2] = j


@jit()
def bpr_epoch(
    user_of: Array, bounds: Array, taken: Array, user_factors: Array, item_factors: Array, item_bias: Array,
    learning_rate: float, regularization: float, by_count: bool, state: Array,
) -> int:  # fmt: skip
    """Take as many steps as there are interactions; return how many triples were already in order.

    A step draws an interaction (u, i) uniformly and an item j that u did not take, uniformly or by its
    number of users, and follows the gradient of
    ln sigmoid(x_ui - x_uj) - regularization / 2 (|p_u|^2 + |q_i|^2 + |q_j|^2 + b_i^2 + b_j^2).

    Args:
        user_of: int32 (nnz,) user of each interaction.
        bounds: int64 (n_users + 1,) row pointers.
        taken: uint32 (nnz,) items, ascending within a user.
        user_factors: float32 (n_users, factors), changed in place.
        item_factors: float32 (n_items, factors), changed in place.
        item_bias: float32 (n_items,), changed in place.
        learning_rate: Step size.
        regularization: L2 strength.
        by_count: Whether j is the item of a random interaction.
        state: uint64 (1,) generator state, changed in place.
    """
    nnz, factors = taken.shape[0], item_factors.shape[1]
    rate, keep = np.float32(learning_rate), np.float32(1.0 - learning_rate * regularization)
    one = np.float32(1.0)
    ordered = 0
    drawn = np.empty((DRAWN, 3), np.int32)
    for start in range(0, nnz, DRAWN):
        triples = drawn[: min(DRAWN, nnz - start)]
        _draw(user_of, bounds, taken, item_factors.shape[0], by_count, state, triples)
        for n in range(triples.shape[0]):
            u, i, j = triples[n, 0], triples[n, 1], triples[n, 2]
            if u < 0:
                continue
            margin = item_bias[i] - item_bias[j] + _margin(user_factors, item_factors, u, i, j)
            ordered += margin > 0
            step = rate / (one + np.float32(math.exp(margin)))
            # Two indices, not row views: a view is reference-counted, which keeps the loop from vectorising.
            for f in range(factors):
                p, q, r = user_factors[u, f], item_factors[i, f], item_factors[j, f]
                user_factors[u, f] = keep * p + step * (q - r)
                item_factors[i, f] = keep * q + step * p
                item_factors[j, f] = keep * r - step * p
            item_bias[i] = keep * item_bias[i] + step
            item_bias[j] = keep * item_bias[j] - step
    return ordered
