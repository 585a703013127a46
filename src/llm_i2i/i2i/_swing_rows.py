"""The rows of Swing: checked options, what all rows share, one range of items at a time."""

import logging
import math
from dataclasses import dataclass

import numpy as np

from llm_i2i.arrays import Array
from llm_i2i.errors import DataError
from llm_i2i.i2i._jit import threads
from llm_i2i.i2i._kernels import count_columns, swing_rows, users_of_block
from llm_i2i.i2i._similar import Rows, check_number, empty_rows, heaviest_first
from llm_i2i.i2i.user_items import UserItems, pointers, row_pointers

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SwingOptions:
    """Options of `llm_i2i.i2i.swing`, checked; a warning tells when they raise heavy users.

    The defaults are the paper's. Section train_i2i of params.yaml spells them out as well.

    Attributes:
        smoothing: >= 0, added to |I_u ∩ I_v|.
        user_exponent: Exponent of the user weight; a negative one raises heavy users.
        user_shift: >= 0, added to |I_u| in the user weight.
        self_pair_weight: >= 0; adds this times w_u^2 / (smoothing + |I_u|) for every user of both items, so that
            a single shared user counts. 0 = the paper.
        popularity_exponent: Scores are divided by (n_i n_j) ^ this, n = users of the item. 0 = the paper.

    Raises:
        ParamsError: An option is out of range.
    """

    smoothing: float = 1.0
    user_exponent: float = 0.5
    user_shift: float = 0.0
    self_pair_weight: float = 0.0
    popularity_exponent: float = 0.0

    def __post_init__(self) -> None:
        for name in ("smoothing", "user_shift", "self_pair_weight"):
            check_number(f"swing {name}", getattr(self, name), minimum=0.0)
        for name in ("user_exponent", "popularity_exponent"):
            check_number(f"swing {name}", getattr(self, name))
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
        DataError: A weight overflows.
    """
    by_user = pointers(user_items)
    n_users_of = np.zeros(user_items.shape[1], np.int64)
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
    by_item = (start, users)
    minimum = 1 if ready.options.self_pair_weight > 0 else 2
    order = first + heaviest_first(ready.by_user[0], by_item, minimum=minimum)
    rows = empty_rows(last - first, top_k, n_columns=ready.n_items)
    swing_rows(
        threads(), order, ready.by_user, by_item, ready.weight,
        ready.inverse, ready.self_term, ready.item_scale, minimum, first, rows,
    )  # fmt: skip
    return rows
