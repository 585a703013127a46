"""Swing: two items are similar if pairs of users took both who otherwise share little.

s(i, j) = sum over unordered pairs {u, v} of users of both items of w_u w_v / (smoothing + |I_u ∩ I_v|),
w_u = (user_shift + |I_u|) ^ -user_exponent. Source: Yang et al., "Large Scale Product Graph Construction for
Recommendation in E-commerce", arXiv:2010.05525, section 4.
"""

import logging
import math
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from scipy import sparse

from llm_i2i.errors import DataError, ParamsError
from llm_i2i.i2i._jit import threads
from llm_i2i.i2i._kernels import swing_rows
from llm_i2i.i2i._similar import Array, Rows, Similar, check_number, empty_rows, heaviest_first, to_csr
from llm_i2i.i2i.user_items import UserItems, check_user_items, pointers, row_pointers, transposed

log = logging.getLogger(__name__)

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
    self_pair_weight: float = 0.0,
    popularity_exponent: float = 0.0,
    seed: int = 0,
) -> Similar:
    """Compute Swing similarities, exactly unless a cap is set; same bits for any number of threads.

    Memory: O(nnz + n_items x top_k + threads x (n_items + largest local problem)).

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
    options = {"smoothing": smoothing, "user_shift": user_shift, "self_pair_weight": self_pair_weight}
    for name, value in options.items():
        check_number(f"swing {name}", value, minimum=0.0)
    check_number("swing user_exponent", user_exponent)
    check_number("swing popularity_exponent", popularity_exponent)
    check_number("swing top_k", top_k, minimum=1, whole=True)
    check_number("swing min_user_items", min_user_items, minimum=0, whole=True)
    check_number("swing seed", seed, minimum=0, whole=True)
    for name, cap in {"max_user_items": max_user_items, "max_item_users": max_item_users}.items():
        if cap is not None:
            check_number(f"swing {name}", cap, minimum=2, whole=True)
    if user_exponent < 0:
        log.warning(
            "swing: user_exponent %g < 0 raises heavy users: one with 100 items weighs %.2f times one with 10",
            user_exponent,
            math.exp(min(700.0, -user_exponent * math.log((user_shift + 100) / (user_shift + 10)))),
        )
    rows = swing_float64(
        limit_users(check_user_items(user_items), minimum=min_user_items, maximum=max_user_items, seed=seed),
        smoothing=smoothing,
        user_exponent=user_exponent,
        user_shift=user_shift,
        top_k=top_k,
        max_item_users=max_item_users,
        self_pair_weight=self_pair_weight,
        popularity_exponent=popularity_exponent,
        seed=seed,
    )
    return to_csr(rows)


def swing_float64(
    user_items: UserItems,
    *,
    smoothing: float,
    user_exponent: float,
    user_shift: float,
    top_k: int,
    max_item_users: int | None,
    self_pair_weight: float,
    popularity_exponent: float,
    seed: int,
) -> Rows:
    """Compute the rows of `swing` before rounding to float32, from a checked matrix.

    Returns:
        (items int32, scores float64, sizes int64): (n_items, top_k) twice and (n_items,).
    """
    item_users = transposed(user_items)
    # Users and items without interactions are never looked up; 1 keeps their entries finite.
    lengths = np.maximum(np.diff(user_items.indptr), 1).astype(np.float64)
    n_users_of = np.maximum(np.diff(item_users.indptr), 1).astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        weight = (user_shift + lengths) ** -user_exponent
        scale = n_users_of**-popularity_exponent
        self_term = self_pair_weight * weight**2 / (smoothing + lengths)
    shared = np.maximum(np.arange(int(lengths.max()) + 2), 1)  # no pair of users of one item shares nothing
    inverse = 1.0 / (smoothing + shared.astype(np.float64))
    if not (np.isfinite(weight).all() and np.isfinite(scale).all()):
        raise DataError("swing", "a weight overflows", "finite weights", "use a smaller exponent")
    minimum = 1 if self_pair_weight > 0 else 2
    order = heaviest_first(user_items, item_users, minimum=minimum)
    rows = empty_rows(user_items.shape[1], top_k)
    by_item = pointers(_sampled_users(item_users, maximum=max_item_users, seed=seed))
    by_user = pointers(user_items)
    swing_rows(threads(), order, by_user, by_item, weight, inverse, self_term, scale, minimum, rows)
    return rows


def limit_users(user_items: UserItems, *, minimum: int, maximum: int | None, seed: int) -> UserItems:
    """Leave out users with fewer than `minimum` items and cut users with more than `maximum`; log both.

    Raises:
        DataError: No user is left.
    """
    lengths = np.diff(user_items.indptr)
    taken = lengths[lengths > 0]
    few = int((taken < minimum).sum())
    if few == len(taken):
        raise DataError("swing", f"no user has min_user_items = {minimum} items", "at least one user")
    if few:
        share, lost = few / len(taken), int(taken[taken < minimum].sum()) / int(taken.sum())
        log.warning(
            "swing: min_user_items %d leaves out %s of %s users (%.1f %%) and %.1f %% of interactions",
            minimum,
            f"{few:,}",
            f"{len(taken):,}",
            100 * share,
            100 * lost,
        )
    kept = _sample(user_items, maximum=maximum, seed=seed, what="users", cap="max_user_items")
    keep = np.repeat(lengths >= minimum, np.diff(kept.indptr))
    sizes = np.where(lengths >= minimum, np.diff(kept.indptr), 0)
    return _from_parts(kept.indices[keep], sizes, kept.shape)


def _sampled_users(item_users: UserItems, *, maximum: int | None, seed: int) -> UserItems:
    """Return the users each item's row uses."""
    return _sample(item_users, maximum=maximum, seed=seed, what="items", cap="max_item_users")


def _sample(matrix: UserItems, *, maximum: int | None, seed: int, what: str, cap: str) -> UserItems:
    """Cut rows to a seeded sample of `maximum` entries; the sample of a row depends on seed and row only."""
    lengths = np.diff(matrix.indptr)
    long = np.flatnonzero(lengths > maximum) if maximum is not None else np.empty(0, np.int64)
    if maximum is None or not long.size:
        return matrix
    keep = np.ones(matrix.indices.size, dtype=np.bool_)
    for row in long:
        start, stop = int(matrix.indptr[row]), int(matrix.indptr[row + 1])
        generator = np.random.default_rng([seed, int(row)])
        keep[start:stop] = False
        keep[start + generator.choice(stop - start, maximum, replace=False)] = True
    log.warning(
        "swing: %s %d samples %s of %s %s (longest %s), using %.1f %% of interactions",
        cap,
        maximum,
        f"{long.size:,}",
        f"{len(lengths):,}",
        what,
        f"{int(lengths.max()):,}",
        100 * float(keep.mean()),
    )
    return _from_parts(matrix.indices[keep], np.minimum(lengths, maximum), matrix.shape)


def _from_parts(indices: Array, sizes: Array, shape: tuple[int, int]) -> UserItems:
    """Return CSR of ones from row sizes and column indices."""
    return sparse.csr_array((np.ones(indices.size, np.float32), indices, row_pointers(sizes)), shape=shape)
