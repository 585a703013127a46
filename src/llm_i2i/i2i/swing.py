"""Swing: two items are similar if pairs of users took both who otherwise share little.

s(i, j) = sum over unordered pairs {u, v} of users of both items of w_u w_v / (smoothing + |I_u ∩ I_v|),
w_u = (user_shift + |I_u|) ^ -user_exponent. Source: Yang et al., "Large Scale Product Graph Construction for
Recommendation in E-commerce", arXiv:2010.05525, section 4.
"""

from collections.abc import Iterator

from tqdm import tqdm

from llm_i2i.i2i._similar import Similar, check_number, to_csr
from llm_i2i.i2i._swing_rows import Prepared, SwingOptions, block_rows, prepare
from llm_i2i.i2i.user_items import UserItems, check_user_items


def swing(user_items: UserItems, *, top_k: int = 100, **options: float) -> Similar:
    """Compute Swing similarities exactly; same bits for any number of threads.

    Memory: O(nnz + n_items x top_k + threads x (n_items + largest local problem)); see also `swing_blocks`.

    Args:
        user_items: Binary CSR (n_users, n_items).
        top_k: Neighbours per row at most, >= 1; more than n_items - 1 means all.
        **options: Fields of `SwingOptions`; what is not given is as in the paper.

    Returns:
        CSR (n_items, n_items), float32 > 0, zero diagonal, each row by score descending (as float32),
        ties by item index; its column indices are therefore not sorted.

    Raises:
        DataError: Not a binary, non-empty matrix, or a score overflows.
        ParamsError: An option is out of range.
    """
    check_number("swing top_k", top_k, minimum=1, whole=True)
    ready = prepare(check_user_items(user_items), SwingOptions(**options))
    return to_csr(block_rows(ready, 0, ready.n_items, top_k))


def swing_blocks(
    user_items: UserItems, *, block_items: int, top_k: int = 100, **options: float
) -> Iterator[tuple[int, Similar]]:
    """Compute `swing` for one range of items at a time, for data whose result or input does not fit in memory.

    The arrays of `user_items` may be memory maps (`numpy.load(..., mmap_mode="r")`): rows are then read as
    they are needed and nothing of size nnz is allocated, if the matrix is already as `check_user_items`
    returns it. Memory: O(n_users + n_items + interactions of a block + block_items x top_k
    + threads x (n_items + largest local problem)).

    Args:
        user_items: Binary CSR (n_users, n_items).
        block_items: Items per block, >= 1; the last block may have fewer.
        top_k: As of `swing`.
        **options: As of `swing`.

    Yields:
        (first item, CSR (items of the block, n_items)): put on top of each other they are `swing`'s result,
        bit by bit.

    Raises:
        DataError: As of `swing`.
        ParamsError: As of `swing`, or `block_items` is out of range.
    """
    check_number("swing block_items", block_items, minimum=1, whole=True)
    check_number("swing top_k", top_k, minimum=1, whole=True)
    ready = prepare(check_user_items(user_items), SwingOptions(**options))
    return _blocks(ready, block_items, top_k)


def _blocks(ready: Prepared, block_items: int, top_k: int) -> Iterator[tuple[int, Similar]]:
    """Yield the blocks of `swing_blocks`."""
    starts = range(0, ready.n_items, block_items)
    for first in tqdm(starts, desc="swing", unit="block", leave=False, disable=None):
        last = min(first + block_items, ready.n_items)
        yield first, to_csr(block_rows(ready, first, last, top_k), n_columns=ready.n_items)
