"""What all similarity models share: option checks, output arrays, the work order, the resulting CSR."""

from typing import Any, cast

import numpy as np
from scipy import sparse

from llm_i2i.arrays import Array
from llm_i2i.errors import DataError, ParamsError
from llm_i2i.i2i._jit import threads
from llm_i2i.i2i._kernels import join_rows, overlap_rows
from llm_i2i.i2i.user_items import UserItems, pointers, row_pointers

Similar = sparse.csr_array[Any, tuple[int, int]]
Rows = tuple[Array, Array, Array]  # (items int32, scores float64, sizes int64)


def check_number(name: str, value: float, *, minimum: float | None = None, whole: bool = False) -> None:
    """Check one option.

    Raises:
        ParamsError: Not a number, not finite, not whole where it must be, or below `minimum`.
    """
    kinds = (int, np.integer) if whole else (int, float, np.integer, np.floating)
    expected = "a whole number" if whole else "a finite number"
    if minimum is not None:
        expected += f" >= {minimum:g}"
    good = isinstance(value, kinds) and not isinstance(value, bool) and bool(np.isfinite(value))
    if not good or (minimum is not None and value < minimum):
        raise ParamsError(name, f"is {value!r}", expected)


def empty_rows(n_items: int, top_k: int) -> Rows:
    """Return output arrays for rows of at most `top_k` neighbours; a row has at most n_items - 1."""
    shape = (n_items, max(1, min(top_k, n_items - 1)))
    return np.empty(shape, np.int32), np.empty(shape, np.float64), np.zeros(n_items, np.int64)


def heaviest_first(
    user_start: Array, by_item: tuple[Array, Array], *, minimum: int, wanted: Array | None = None
) -> Array:
    """Return the rows of `by_item` with at least `minimum` users, int64, by list touches (sum of |I_u|) descending.

    Args:
        user_start: int64 (n_users + 1,) row pointers of the users.
        by_item: (pointers int64, users uint32) of each item.
        minimum: Users a row needs.
        wanted: bool (n_items,): the rows to return; None = all.
    """
    start, users = by_item
    lengths = np.diff(user_start)
    sums = np.concatenate([[0], np.cumsum(lengths[users])])
    work = sums[start[1:]] - sums[start[:-1]]
    order = np.argsort(-work, kind="stable")
    kept = np.diff(start) >= minimum if wanted is None else wanted & (np.diff(start) >= minimum)
    return cast("Array", order[kept[order]].astype(np.int64))


def to_csr(rows: Rows) -> Similar:
    """Return CSR (n_items, n_items): zero diagonal, each row by score descending, then item index.

    Raises:
        DataError: A score is not finite in float32 (extreme exponents or weights).
    """
    sizes = rows[2]
    indptr = row_pointers(sizes)
    indices, data = np.empty(indptr[-1], np.int32), np.empty(indptr[-1], np.float32)
    join_rows(rows, indptr, indices, data)
    if not np.isfinite(data).all():
        raise DataError("similarity", "a score is not finite", "scores within float32", "use a smaller exponent")
    matrix = sparse.csr_array((data, indices, indptr), shape=(len(sizes), len(sizes)))
    matrix.has_sorted_indices = False  # the order within a row is the ranking
    return cast("Similar", matrix)


def overlap(
    user_items: UserItems, item_users: UserItems, *, user_gain: Array, item_scale: Array, top_k: int,
    wanted: Array | None = None,
) -> Similar:  # fmt: skip
    """Return the top-k of score(i, j) = item_scale_i item_scale_j x sum of user_gain over users of both.

    One row of the product is alive per thread, so memory is O(nnz + n_items x top_k + threads x n_items).

    Args:
        user_items: Checked CSR (n_users, n_items).
        item_users: Its transpose.
        user_gain: float64 (n_users,) >= 0.
        item_scale: float64 (n_items,) >= 0.
        top_k: Neighbours per row at most.
        wanted: bool (n_items,): the items whose rows are computed; None = all.
    """
    by_user, by_item = pointers(user_items), pointers(item_users)
    order = heaviest_first(by_user[0], by_item, minimum=1, wanted=wanted)
    rows = empty_rows(user_items.shape[1], top_k)
    overlap_rows(threads(), order, by_user, by_item, user_gain, item_scale, rows)
    return to_csr(rows)
