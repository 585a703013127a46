"""Swing: two items are similar if pairs of users took both who otherwise share little.

s(i, j) = sum over unordered pairs {u, v} of users of both items of w_u w_v / (smoothing + |I_u ∩ I_v|),
w_u = (user_shift + |I_u|) ^ -user_exponent. Source: Yang et al., "Large Scale Product Graph Construction for
Recommendation in E-commerce", arXiv:2010.05525, section 4.
"""

from collections.abc import Iterator
from types import MappingProxyType
from typing import Any, Final

from tqdm import tqdm

from llm_i2i.errors import ParamsError
from llm_i2i.i2i._similar import Similar, check_number, to_csr
from llm_i2i.i2i._swing_rows import Prepared, SwingOptions, block_rows, prepare
from llm_i2i.i2i.user_items import UserItems, check_user_items

# Options of known implementations. Both Flink ML and Alink drop users with more than 1000 items; here
# `max_user_items` keeps a seeded sample of 1000 of their items instead.
PRESETS: Final = MappingProxyType(
    {
        "paper": {"smoothing": 1.0, "user_exponent": 0.5, "user_shift": 0.0},
        "flink_ml": {
            "smoothing": 0.0,
            "user_exponent": 0.3,
            "user_shift": 15.0,
            "min_user_items": 10,
            "max_user_items": 1000,
            "max_item_users": 1000,
        },
        "alink": {
            "smoothing": 1.0,
            "user_exponent": -0.35,
            "user_shift": 5.0,
            "min_user_items": 10,
            "max_user_items": 1000,
            "max_item_users": 1000,
        },
    }
)


def swing_preset(name: str) -> dict[str, Any]:
    """Return the options of a known implementation, for `swing(user_items, **swing_preset(name))`.

    Args:
        name: `paper`, `flink_ml` or `alink`.

    Raises:
        ParamsError: Unknown name.
    """
    if name not in PRESETS:
        raise ParamsError("swing preset", f"is {name!r}", " | ".join(PRESETS))
    return dict(PRESETS[name])


def swing(
    user_items: UserItems,
    *,
    smoothing: float = 1.0,
    user_exponent: float = 0.5,
    user_shift: float = 0.0,
    top_k: int = 100,
    min_user_items: int = 0,
    max_user_items: int | None = None,
    max_item_users: int | None = None,
    max_item_work: int | None = None,
    self_pair_weight: float = 0.0,
    popularity_exponent: float = 0.0,
    seed: int = 0,
) -> Similar:
    """Compute Swing similarities, exactly unless a cap is set; same bits for any number of threads.

    Memory: O(nnz + n_items x top_k + threads x (n_items + largest local problem)); see also `swing_blocks`.

    Args:
        user_items: Binary CSR (n_users, n_items).
        smoothing: >= 0, added to |I_u ∩ I_v|.
        user_exponent: Exponent of the user weight; negative raises heavy users (a warning tells).
        user_shift: >= 0, added to |I_u| in the user weight.
        top_k: Neighbours a row at most, >= 1; more than n_items - 1 means all.
        min_user_items: Users with fewer items are left out (a warning tells how many).
        max_user_items: Users with more items keep a seeded sample of so many. None = no cap.
        max_item_users: The row of an item with more users uses a seeded sample of so many of them
            (so s(i, j) may differ from s(j, i)). None = no cap.
        max_item_work: The row of an item that would visit more pairs of users (sum over items j of
            C(n_ij, 2)) uses a seeded sample of its users, for about so many. None = no cap.
        self_pair_weight: >= 0; adds this times w_u^2 / (smoothing + |I_u|) for every user of both
            items, so that a single shared user counts. 0 = the paper.
        popularity_exponent: Scores are divided by (n_i n_j) ^ this, n = users of the item. 0 = the paper.
        seed: Seed of the samples.

    Returns:
        CSR (n_items, n_items), float32 > 0, zero diagonal, each row by score descending (as float32),
        ties by item index; its column indices are therefore not sorted.

    Raises:
        DataError: Not a binary, non-empty matrix, or no user is left, or a score overflows.
        ParamsError: An option is out of range.
    """
    check_number("swing top_k", top_k, minimum=1, whole=True)
    options = SwingOptions(
        smoothing, user_exponent, user_shift, min_user_items, max_user_items, max_item_users, max_item_work,
        self_pair_weight, popularity_exponent, seed,
    )  # fmt: skip
    ready = prepare(check_user_items(user_items), options)
    return to_csr(block_rows(ready, 0, ready.n_items, top_k))


def swing_blocks(
    user_items: UserItems, *, block_items: int, top_k: int = 100, **options: Any
) -> Iterator[tuple[int, Similar]]:
    """Compute `swing` a range of items at a time, for data whose result or input does not fit in memory.

    The arrays of `user_items` may be memory maps (`numpy.load(..., mmap_mode="r")`): rows are then read as
    they are needed and nothing of size nnz is allocated, if the matrix is already as `check_user_items`
    returns it and neither min_user_items nor max_user_items leaves anything out. Memory: O(n_users +
    n_items + interactions of a block + block_items x top_k + threads x (n_items + largest local problem)).

    Args:
        user_items: Binary CSR (n_users, n_items).
        block_items: Items a block, >= 1; the last block may have fewer.
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
