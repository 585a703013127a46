"""The interaction matrix: who took what, as binary CSR, checked once."""

from typing import Any, cast

import numpy as np
import pandas as pd
from scipy import sparse

from llm_i2i.catalogue import item_indices
from llm_i2i.errors import ArtifactError, DataError
from llm_i2i.schema import ITEM_ID, USER_ID, encode

UserItems = sparse.csr_array[Any, tuple[int, int]]
WHERE = "user_items"


def check_user_items(user_items: object) -> UserItems:
    """Check a matrix of interactions and bring it to canonical form.

    Stored zeros mean "no interaction" and are dropped. The input is never changed.

    Args:
        user_items: Any scipy sparse matrix or array (n_users, n_items) with values 0 or 1.

    Returns:
        CSR (n_users, n_items), float32 ones, sorted int32 indices (int64 from 2^31 interactions on).

    Raises:
        DataError: Not a sparse 2-D matrix; empty; a value is NaN, negative or not 0 or 1; a pair is
            stored twice; more items than int32 can number.
    """
    if not sparse.issparse(user_items) or cast("Any", user_items).ndim != 2:
        raise DataError(WHERE, f"is {type(user_items).__name__}", "a scipy sparse matrix (n_users, n_items)")
    if _is_checked(user_items):
        return cast("UserItems", user_items)
    matrix = sparse.coo_array(cast("Any", user_items))
    n_users, n_items = matrix.shape
    if n_items > np.iinfo(np.int32).max - 1:
        raise DataError(WHERE, f"has {n_items:,} items", "fewer than 2^31 - 1 items (indices are int32)")
    _check_values(matrix)
    kept = matrix.data != 0
    rows, columns = matrix.coords[0][kept].astype(np.int64), matrix.coords[1][kept].astype(np.int64)
    if rows.size == 0:
        raise DataError(WHERE, f"is empty: {n_users:,} users, {n_items:,} items, 0 interactions", "interactions")
    keys = rows * n_items + columns
    order = np.arange(keys.size) if (np.diff(keys) > 0).all() else np.argsort(keys, kind="stable")
    repeated = np.flatnonzero(np.diff(keys[order]) == 0)
    if repeated.size:
        first = order[repeated[0]]
        raise DataError(
            WHERE,
            f"{repeated.size:,} pairs are stored twice (first: user {rows[first]}, item {columns[first]})",
            "each pair at most once",
            "call sum_duplicates() and set the values to 1 if repeats mean nothing",
        )
    return _csr(rows[order], columns[order].astype(np.int32), (n_users, n_items))


def user_items_from_frame(fused: pd.DataFrame, items: pd.DataFrame) -> UserItems:
    """Build the binary interaction matrix of a fused table.

    A pair that occurs more than once (real and synthetic, or repeated) counts once. Users are numbered
    in sorted order of their ids, items by their row in `items`.

    Args:
        fused: `schema.FUSED`: one row an interaction.
        items: `schema.ITEMS`: the catalogue; the row number is the item index.

    Returns:
        CSR (n_users, n_items) as of `check_user_items`; items that nobody took are empty columns.

    Raises:
        ArtifactError: A column is missing, no row is there, an id is null or not in the catalogue, or
            a weight is not 1.0 (the I2I models are defined on binary interactions).
    """
    missing = [name for name in (USER_ID, ITEM_ID) if name not in fused.columns]
    if missing:
        raise ArtifactError("fused", f"columns {missing} are missing", f"columns {USER_ID} and {ITEM_ID}")
    if fused.empty:
        raise ArtifactError("fused", "holds no rows", "interactions", "lower fuse.threshold or check the input")
    if "weight" in fused.columns and not bool((fused["weight"] == 1.0).all()):
        wrong = fused.loc[fused["weight"] != 1.0]
        found = f"{len(wrong):,} rows have a weight other than 1.0 (first: {wrong['weight'].iloc[0]})"
        raise ArtifactError("fused", found, "weight 1.0: the I2I models take binary interactions")
    columns = item_indices(fused[ITEM_ID], items, where="fused")
    users = encode(fused[USER_ID]).cat.codes.to_numpy()
    if users.min() < 0:
        raise ArtifactError("fused", f"{int((users < 0).sum()):,} rows have no user_id")
    is_there = np.bincount(users) > 0
    keys = (np.cumsum(is_there) - 1)[users] * len(items) + columns
    if not (np.diff(keys) > 0).all():
        keys = np.unique(keys)
    taken = (keys % len(items)).astype(np.int32)
    return _csr(keys // len(items), taken, (int(is_there.sum()), len(items)))


def _is_checked(matrix: Any) -> bool:
    """Tell whether `check_user_items` would return an equal matrix: found out in a tenth of its time."""
    if not isinstance(matrix, sparse.csr_array) or matrix.nnz == 0 or matrix.data.dtype != np.float32:
        return False
    indices, n_items = matrix.indices, matrix.shape[1]
    if indices.dtype != np.int32 or n_items > np.iinfo(np.int32).max - 1 or not (matrix.data == 1).all():
        return False
    rising = np.diff(indices) > 0
    starts = matrix.indptr[1:-1]
    rising[starts[(starts > 0) & (starts < indices.size)] - 1] = True  # a new row may begin anywhere
    return bool(rising.all() and indices.min() >= 0 and indices.max() < n_items)


def _check_values(matrix: sparse.coo_array) -> None:
    """Raise DataError unless all stored values are 0 or 1."""
    values = np.asarray(matrix.data)
    if values.dtype == np.bool_:
        return
    if values.dtype.kind not in "iuf":
        raise DataError(WHERE, f"values have dtype {values.dtype}", "numbers 0 or 1")
    wrong = ~((values == 0) | (values == 1))
    if wrong.any():
        first = int(np.flatnonzero(wrong)[0])
        user, item = int(matrix.coords[0][first]), int(matrix.coords[1][first])
        kinds = "NaN or infinite" if not np.isfinite(values[wrong]).all() else "not binary"
        found = f"{int(wrong.sum()):,} values are {kinds} (first: {values[first]} at user {user}, item {item})"
        raise DataError(WHERE, found, "0 or 1", "keep positive interactions and set them to 1")


def _csr(rows: Any, columns: Any, shape: tuple[int, int]) -> UserItems:
    """Return CSR of sorted, unique pairs with float32 ones."""
    indptr = row_pointers(np.bincount(rows, minlength=shape[0]))
    matrix = sparse.csr_array((np.ones(len(columns), dtype=np.float32), columns, indptr), shape=shape)
    matrix.has_sorted_indices = True
    return matrix


def row_pointers(sizes: Any) -> np.ndarray[Any, Any]:
    """Return CSR row pointers (n + 1,) of rows of these sizes: int32 if they fit, as scipy then keeps indices int32."""
    indptr = np.zeros(len(sizes) + 1, dtype=np.int64)
    np.cumsum(sizes, out=indptr[1:])
    return indptr.astype(np.int32) if indptr[-1] <= np.iinfo(np.int32).max else indptr


def transposed(user_items: UserItems) -> UserItems:
    """Return CSR (n_items, n_users): the users of each item, ascending."""
    return user_items.T.tocsr()


def pointers(matrix: UserItems) -> tuple[np.ndarray[Any, np.dtype[np.int64]], np.ndarray[Any, np.dtype[np.uint32]]]:
    """Return (row pointers int64, column indices uint32): the types the kernels are compiled for.

    Unsigned, because numba tests every signed index for being negative: some 15 % of Swing's time.
    """
    indices = np.asarray(matrix.indices, dtype=np.int32).view(np.uint32)
    return np.asarray(matrix.indptr, dtype=np.int64), indices
