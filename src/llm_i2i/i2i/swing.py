"""Swing: two items are similar if pairs of users took both who otherwise share little.

s(i, j) = sum over unordered pairs {u, v} of users of both items of w_u w_v / (smoothing + |I_u ∩ I_v|),
w_u = (user_shift + |I_u|) ^ -user_exponent. Source: Yang et al., "Large Scale Product Graph Construction for
Recommendation in E-commerce", arXiv:2010.05525, section 4.
"""

import logging
import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from llm_i2i.arrays import Array
from llm_i2i.errors import DataError
from llm_i2i.i2i._jit import threads
from llm_i2i.i2i._kernels import swing_rows
from llm_i2i.i2i._similar import Rows, Similar, check_number, empty_rows, heaviest_first, to_csr
from llm_i2i.i2i.user_items import UserItems, check_user_items, pointers, transposed

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SwingOptions:
    """Options of `swing`, checked; a warning tells when they raise heavy users.

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

    @property
    def minimum(self) -> int:
        """Shared users from which a pair of items counts."""
        return 1 if self.self_pair_weight > 0 else 2


class Terms(NamedTuple):
    """What `terms_of` returns, each as `swing_rows` takes it.

    Attributes:
        weight: float64 (n_users,).
        inverse: float64 (longest list + 2,).
        self_term: float64 (n_users,).
        scale: float64 (n_items,).
    """

    weight: Array
    inverse: Array
    self_term: Array
    scale: Array


def swing(user_items: UserItems, *, top_k: int = 100, wanted: Array | None = None, **options: float) -> Similar:
    """Compute Swing similarities exactly; same bits for any number of threads.

    Memory: O(nnz + n_items x top_k + threads x (n_items + largest local problem)).

    Args:
        user_items: Binary CSR (n_users, n_items).
        top_k: Neighbours per row at most, >= 1; more than n_items - 1 means all.
        wanted: bool (n_items,): the items whose rows are computed, all others' stay empty; None = all.
        **options: Fields of `SwingOptions`; what is not given is as in the paper.

    Returns:
        CSR (n_items, n_items), float32 > 0, zero diagonal, each row by score descending (as float32),
        ties by item index; its column indices are therefore not sorted.

    Raises:
        DataError: Not a binary, non-empty matrix, or a score overflows.
        ParamsError: An option is out of range.
    """
    check_number("swing top_k", top_k, minimum=1, whole=True)
    return to_csr(rows_of(check_user_items(user_items), SwingOptions(**options), top_k, wanted))


def rows_of(user_items: UserItems, options: SwingOptions, top_k: int, wanted: Array | None = None) -> Rows:
    """Compute the rows of the items wanted from a checked matrix, scores in float64.

    Raises:
        DataError: A weight overflows.
    """
    by_user, by_item = pointers(user_items), pointers(transposed(user_items))
    terms = terms_of(np.diff(by_user[0]), np.diff(by_item[0]), options)
    order = heaviest_first(by_user[0], by_item, minimum=options.minimum, wanted=wanted)
    rows = empty_rows(user_items.shape[1], top_k)
    swing_rows(
        threads(), order, by_user, by_item, terms.weight, terms.inverse, terms.self_term, terms.scale,
        options.minimum, rows,
    )  # fmt: skip
    return rows


def terms_of(lengths: Array, n_users_of: Array, options: SwingOptions) -> Terms:
    """What the formula takes from how many items users and how many users items have.

    Args:
        lengths: int (n_users,), items of each user.
        n_users_of: int (n_items,), users of each item.
        options: The formula's.

    Raises:
        DataError: A weight overflows.
    """
    # Users and items without interactions are never looked up; 1 keeps their entries finite.
    lengths, n_users_of = (np.maximum(counts, 1).astype(np.float64) for counts in (lengths, n_users_of))
    with np.errstate(over="ignore", invalid="ignore"):
        weight = (options.user_shift + lengths) ** -options.user_exponent
        scale = n_users_of**-options.popularity_exponent
        self_term = options.self_pair_weight * weight**2 / (options.smoothing + lengths)
    shared = np.maximum(np.arange(int(lengths.max()) + 2), 1)  # no pair of users of one item shares nothing
    inverse = 1.0 / (options.smoothing + shared.astype(np.float64))
    if not (np.isfinite(weight).all() and np.isfinite(scale).all()):
        raise DataError("swing", "a weight overflows", "finite weights", "use a smaller exponent")
    return Terms(weight, inverse, self_term, scale)
