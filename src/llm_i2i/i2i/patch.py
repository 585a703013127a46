"""A new day's index out of the last one: rows that nothing has touched are taken over, bit by bit.

A row of Swing depends on the item's users and on all that each of them took: it is touched if one of these users is
new, gone or has another item. A row of item-kNN, and of Swing with a popularity exponent, depends on how many users
each neighbour has as well. Rows are known by a 128-bit hash of all that they depend on, so that nothing stale is taken,
whatever has happened in between. BM25 has no such rows: the number of items and their mean number of users are in
every score.
"""

import hashlib
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pandas as pd
from scipy import sparse

from llm_i2i.arrays import Array
from llm_i2i.files import staged, writing
from llm_i2i.i2i._similar import Similar
from llm_i2i.i2i.user_items import UserItems, row_pointers, transposed

log = logging.getLogger(__name__)
PATCHED = ("swing", "item_knn")
_HASH_KEYS = ("0123456789abcdef", "fedcba9876543210")  # one for each half of a hash


def patched(
    user_items: UserItems, ids: tuple[pd.Index, pd.Index], kept: Path, settings: str, *, counts: bool,
    compute: Callable[..., Similar],
) -> Similar:  # fmt: skip
    """Take over rows of the last index and compute the others; keep the whole for the next time.

    Args:
        user_items: Checked CSR (n_users, n_items).
        ids: Of its rows, users, ascending; and of its columns, items.
        kept: File with the last index, which is replaced; it need not be there.
        settings: The model and its options.
        counts: Whether a row depends on the number of users of its neighbours.
        compute: Gives the rows of the items that a mask `wanted`, bool (n_items,), names; its other rows are empty.

    Returns:
        What `compute` gives for all items.
    """
    keys, names = row_keys(user_items, *ids, counts=counts), _hashes(ids[1])
    longest = int(np.diff(user_items.indptr).max())
    work = _code_sha256(f"{settings} {longest < (1 << 16) - 2}")  # Swing's kernel counts longer lists in another way
    last = _read(kept, work)
    new_items = _places(last["names"], names) if last else np.empty(0, np.int64)
    if (np.diff(new_items[new_items >= 0]) < 0).any():
        last = None  # ties are ordered by item
    places = _places(keys, last["keys"]) if last else np.full(len(keys), -1)
    found = compute(wanted=places < 0)
    if last:
        found = _joined(found, last, places, new_items)
    log.info("%s: %s of %s rows are the last index's", kept, f"{int((places >= 0).sum()):,}", f"{len(keys):,}")
    indptr = found.indptr.astype(np.int64)
    _write(kept, work=np.array(work), keys=keys, names=names, indptr=indptr, indices=found.indices, data=found.data)
    return found


def row_keys(user_items: UserItems, users: pd.Index, items: pd.Index, *, counts: bool) -> Array:
    """Hash what each item's row depends on.

    Args:
        user_items: Checked CSR (n_users, n_items).
        users: Ids of its rows, ascending: their order is that of the sums.
        items: Ids of its columns.
        counts: Whether a row depends on the number of users of its neighbours.

    Returns:
        uint64 (n_items, 2).
    """
    by_item = transposed(user_items)
    item, user = _hashes(items), _hashes(users)
    if counts:
        item = _mixed(item ^ _mixed(np.diff(by_item.indptr).astype(np.uint64))[:, None])
    keys = np.empty_like(item)
    for half in (0, 1):
        taken = _sums(_mixed(item[:, half]), user_items)
        of_user = _mixed(user[:, half] ^ _mixed(taken))
        keys[:, half] = _mixed(item[:, half] ^ _mixed(_sums(of_user, by_item)))
    return keys


def _sums(values: Array, rows: UserItems) -> Array:
    """Sum of the values of each row's columns, modulo 2^64, so that their order does not matter."""
    totals = np.concatenate([np.zeros(1, np.uint64), np.cumsum(values[rows.indices], dtype=np.uint64)])
    sums: Array = totals[rows.indptr[1:]] - totals[rows.indptr[:-1]]
    return sums


def _hashes(ids: pd.Index) -> Array:
    """uint64 (n, 2): 128 bits of each id."""
    texts = ids.to_numpy(dtype=object)
    return np.stack([pd.util.hash_array(texts, hash_key=key, categorize=False) for key in _HASH_KEYS], axis=1)


def _mixed(values: Array) -> Array:
    """splitmix64's finalizer: every bit depends on every bit (Steele et al. 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: Array = values ^ (values >> np.uint64(31))
    return mixed


def _places(wanted: Array, among: Array) -> Array:
    """Where each hash is among others, int64 (n,); -1 = nowhere."""
    order = np.argsort(among[:, 0], kind="stable")
    near = np.searchsorted(among[order, 0], wanted[:, 0])
    place = order[np.minimum(near, len(order) - 1)]
    return np.where((among[place] == wanted).all(axis=1), place, -1)


def _joined(found: Similar, last: Mapping[str, Array], places: Array, new_items: Array) -> Similar:
    """The rows found, and for the others those of the last index, whose items have other numbers now."""
    taken = np.flatnonzero(places >= 0)
    start, end = last["indptr"][places[taken]], last["indptr"][places[taken] + 1]
    sizes = np.diff(found.indptr).astype(np.int64)
    sizes[taken] = end - start
    indptr = row_pointers(sizes)
    is_taken = np.repeat(places >= 0, sizes)
    cells = np.repeat(start - np.cumsum(end - start) + (end - start), end - start) + np.arange((end - start).sum())
    indices, data = np.empty(indptr[-1], np.int32), np.empty(indptr[-1], np.float32)
    indices[~is_taken], data[~is_taken] = found.indices, found.data
    indices[is_taken], data[is_taken] = new_items[last["indices"][cells]], last["data"][cells]
    joined = sparse.csr_array((data, indices, indptr), shape=found.shape)
    joined.has_sorted_indices = False  # the order within a row is the ranking
    return joined


def _code_sha256(settings: str) -> str:
    """SHA-256 of the settings and of the code that computes with them."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    parts = [settings, np.__version__, numba.__version__, *(path.read_text(encoding="utf-8") for path in files)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _read(path: Path, work: str) -> dict[str, Any] | None:
    """What was kept of the same work; None if nothing can be read."""
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            return dict(file) if str(file["work"]) == work else None
    except Exception:  # noqa: BLE001  # a torn archive raises almost anything
        log.warning("%s is unreadable: all rows are computed", path)
        return None


def _write(path: Path, **arrays: Array) -> None:
    with staged(path) as partial, writing(path, kinds=Exception), partial.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]  # numpy's stub takes a bool keyword for a name
