"""The rows of Swing: checked options, what all rows share, one range of items at a time, caps."""

import logging
import math
from dataclasses import dataclass
from typing import cast

import numpy as np
from scipy import sparse

from llm_i2i.arrays import Array
from llm_i2i.errors import DataError
from llm_i2i.i2i._jit import threads
from llm_i2i.i2i._kernels import count_columns, swing_rows, swing_work, users_of_block
from llm_i2i.i2i._similar import Rows, check_number, empty_rows, heaviest_first
from llm_i2i.i2i.user_items import UserItems, pointers, row_pointers

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SwingOptions:
    """Options of `llm_i2i.i2i.swing`, checked; a warning tells when they raise heavy users.

    Raises:
        ParamsError: An option is out of range.
    """

    smoothing: float = 1.0
    user_exponent: float = 0.5
    user_shift: float = 0.0
    min_user_items: int = 0
    max_user_items: int | None = None
    max_item_users: int | None = None
    max_item_work: int | None = None
    self_pair_weight: float = 0.0
    popularity_exponent: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("smoothing", "user_shift", "self_pair_weight"):
            check_number(f"swing {name}", getattr(self, name), minimum=0.0)
        for name in ("user_exponent", "popularity_exponent"):
            check_number(f"swing {name}", getattr(self, name))
        for name in ("min_user_items", "seed"):
            check_number(f"swing {name}", getattr(self, name), minimum=0, whole=True)
        for name, least in {"max_user_items": 2, "max_item_users": 2, "max_item_work": 1}.items():
            if getattr(self, name) is not None:
                check_number(f"swing {name}", getattr(self, name), minimum=least, whole=True)
        if self.user_exponent < 0:
            ratio = (self.user_shift + 100) / (self.user_shift + 10)
            log.warning(
                "swing: user_exponent %g < 0 raises heavy users: one with 100 items weighs %.2f times one with 10",
                self.user_exponent,
                math.exp(min(700.0, -self.user_exponent * math.log(ratio))),
            )


@dataclass(frozen=True)
class Prepared:
    """What the rows of all items share.

    Attributes:
        by_user: (pointers int64, items uint32) of each user.
        n_users_of: int64 (n_items,) users of each item.
        weight: float64 (n_users,) w_u.
        inverse: float64, entry c = 1 / (smoothing + c).
        self_term: float64 (n_users,) what one shared user adds alone.
        item_scale: float64 (n_items,) n_i ^ -popularity_exponent.
        options: The options.
    """

    by_user: tuple[Array, Array]
    n_users_of: Array
    weight: Array
    inverse: Array
    self_term: Array
    item_scale: Array
    options: SwingOptions

    @property
    def n_items(self) -> int:
        """Width of the matrix."""
        return len(self.n_users_of)


def prepare(user_items: UserItems, options: SwingOptions) -> Prepared:
    """Compute what all rows share, from a checked matrix.

    Raises:
        DataError: No user is left, or a weight overflows.
    """
    matrix = limit_users(
        user_items, minimum=options.min_user_items, maximum=options.max_user_items, seed=options.seed
    )
    by_user = pointers(matrix)
    n_users_of = np.zeros(matrix.shape[1], np.int64)
    count_columns(by_user[1], 0, n_users_of)
    # Users and items without interactions are never looked up; 1 keeps their entries finite.
    lengths = np.maximum(np.diff(by_user[0]), 1).astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        weight = (options.user_shift + lengths) ** -options.user_exponent
        scale = np.maximum(n_users_of, 1).astype(np.float64) ** -options.popularity_exponent
        self_term = options.self_pair_weight * weight**2 / (options.smoothing + lengths)
    shared = np.maximum(np.arange(int(lengths.max()) + 2), 1)  # no pair of users of one item shares nothing
    inverse = 1.0 / (options.smoothing + shared.astype(np.float64))
    if not (np.isfinite(weight).all() and np.isfinite(scale).all()):
        raise DataError("swing", "a weight overflows", "finite weights", "use a smaller exponent")
    return Prepared(by_user, n_users_of, weight, inverse, self_term, scale, options)


def block_rows(ready: Prepared, first: int, last: int, top_k: int) -> Rows:
    """Compute the rows of the items first..last - 1, scores in float64; a row depends on no other.

    Returns:
        (items int32, scores float64, sizes int64): (last - first, top_k) twice and (last - first,).
    """
    start = row_pointers(ready.n_users_of[first:last]).astype(np.int64)
    users = np.empty(int(start[-1]), np.uint32)
    users_of_block(ready.by_user, first, start, users)
    by_item = _capped(ready, (start, users), first)
    minimum = 1 if ready.options.self_pair_weight > 0 else 2
    order = first + heaviest_first(ready.by_user[0], by_item, minimum=minimum)
    rows = empty_rows(last - first, top_k, n_columns=ready.n_items)
    swing_rows(
        threads(), order, ready.by_user, by_item, ready.weight,
        ready.inverse, ready.self_term, ready.item_scale, minimum, first, rows,
    )  # fmt: skip
    return rows


def limit_users(user_items: UserItems, *, minimum: int, maximum: int | None, seed: int) -> UserItems:
    """Leave out users with fewer than `minimum` items and cut users with more than `maximum`; log both.

    Raises:
        DataError: No user is left.
    """
    lengths = np.diff(user_items.indptr)
    if minimum <= 1 and (maximum is None or int(lengths.max()) <= maximum):
        return user_items
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
    limit = np.where(lengths >= minimum, lengths if maximum is None else np.minimum(lengths, maximum), 0)
    if maximum is not None:
        _report("users", "max_user_items", maximum, lengths[limit > 0], limit[limit > 0])
    start = user_items.indptr.astype(np.int64)
    keep = _sample(start, np.where(limit > 0, limit, lengths), seed)
    keep &= np.repeat(limit > 0, lengths)
    indices = user_items.indices[keep]
    ones = np.ones(indices.size, np.float32)
    return cast("UserItems", sparse.csr_array((ones, indices, row_pointers(limit)), shape=user_items.shape))


def _capped(ready: Prepared, by_item: tuple[Array, Array], base: int) -> tuple[Array, Array]:
    """Return the users each item's row uses: all, or a seeded sample under the caps; log what was cut."""
    start, users = by_item
    lengths = np.diff(start)
    options = ready.options
    limit = lengths.copy()
    if options.max_item_users is not None:
        limit = np.minimum(limit, options.max_item_users)
        _report("items", "max_item_users", options.max_item_users, lengths, limit)
    if options.max_item_work is not None:
        work = np.zeros(len(lengths))
        swing_work(ready.by_user, by_item, ready.n_items, work)
        # Half the users make a quarter of the pairs.
        share = np.sqrt(np.minimum(options.max_item_work / np.maximum(work, 1.0), 1.0))
        fits = np.maximum(np.floor(lengths * share).astype(np.int64), 2)
        before, limit = limit, np.minimum(limit, fits)
        _report("items", "max_item_work", options.max_item_work, before, limit)
    if (limit == lengths).all():
        return by_item
    return row_pointers(limit).astype(np.int64), users[_sample(start, limit, options.seed, base)]


def _sample(start: Array, limit: Array, seed: int, base: int = 0) -> Array:
    """Return which entries stay, bool (nnz,): a sample of limit[row] of each row by seed and base + row only."""
    keep = np.ones(int(start[-1]), dtype=np.bool_)
    for row in np.flatnonzero(limit < np.diff(start)):
        first, last = int(start[row]), int(start[row + 1])
        generator = np.random.default_rng([seed, base + int(row)])
        keep[first:last] = False
        keep[first + generator.choice(last - first, int(limit[row]), replace=False)] = True
    return keep


def _report(what: str, cap: str, value: int, lengths: Array, limit: Array) -> None:
    """Warn of what a cap leaves out."""
    cut = limit < lengths
    if cut.any():
        log.warning(
            "swing: %s %d samples %s of %s %s (longest %s), using %.1f %% of interactions",
            cap,
            value,
            f"{int(cut.sum()):,}",
            f"{len(lengths):,}",
            what,
            f"{int(lengths.max()):,}",
            100 * float(limit.sum() / lengths.sum()),
        )
