"""Recommend from similarities: sum the neighbours of a user's last items, drop the history, rank.

score(candidate) = sum over the last M history items of decay^age x similarity(item, candidate), age 0 the
most recent; summed in float64 from the most recent item on, compared as float32, ties by item index.
"""

from dataclasses import dataclass

import numpy as np

from llm_i2i.arrays import Array
from llm_i2i.catalogue import Histories
from llm_i2i.errors import DataError, ParamsError
from llm_i2i.i2i._jit import threads
from llm_i2i.i2i._kernels import rank_rows
from llm_i2i.i2i._similar import Similar, check_number
from llm_i2i.i2i.user_items import pointers


@dataclass(frozen=True)
class Recommendations:
    """What `recommend` returns.

    Attributes:
        ranks: int32 (n_users,), 1-based rank of the target among all items outside the history;
            0 = the target got no score (or there is no target).
        lists: int32 (n_users, top_k), item indices best first, -1 behind the end.
    """

    ranks: Array
    lists: Array


def recommend(
    similar: Similar,
    histories: Histories,
    *,
    top_k: int,
    targets: Array | None = None,
    last_m: int = 0,
    decay: float = 1.0,
) -> Recommendations:
    """Rank the catalogue for each user; same bits for any number of threads.

    The whole history is removed from the candidates, also what lies before the last M items. A target
    inside the history therefore has rank 0.

    Args:
        similar: CSR (n_items, n_items) of positive similarities.
        histories: The users' histories.
        top_k: Length of the lists, >= 1.
        targets: Item index per user (n_users,), -1 = none; None = none at all.
        last_m: Query length M, 0 = the whole history.
        decay: In (0, 1].

    Returns:
        Ranks and lists.

    Raises:
        DataError: Shapes or item indices do not fit the similarities, or a similarity is not positive.
        ParamsError: An option is out of range.
    """
    check_number("recommend top_k", top_k, minimum=1, whole=True)
    check_number("recommend last_m", last_m, minimum=0, whole=True)
    if not 0.0 < decay <= 1.0:
        raise ParamsError("recommend decay", f"is {decay!r}", "a number in (0, 1]")
    n_users, n_items = len(histories.bounds) - 1, similar.shape[0]
    if targets is None:
        targets = np.full(n_users, -1)
    if len(targets) != n_users:
        raise DataError("recommend", f"{len(targets):,} targets for {n_users:,} histories", "one each")
    for name, values, least in (("history", histories.items, 0), ("target", targets, -1)):
        if len(values) and (np.min(values) < least or np.max(values) >= n_items):
            raise DataError("recommend", f"a {name} item lies outside the catalogue", f"indices < {n_items:,}")
    if similar.data.size and not (similar.data > 0).all():
        raise DataError("recommend", "a similarity is not positive", "scores > 0")
    ranks = np.zeros(n_users, np.int32)
    lists = np.full((n_users, min(top_k, n_items)), -1, np.int32)
    rank_rows(
        threads(),
        (*pointers(similar), np.asarray(similar.data, np.float32)),
        (np.asarray(histories.bounds, np.int64), np.asarray(histories.items, np.uint32)),
        np.asarray(targets, np.int64),
        last_m,
        float(decay),
        ranks,
        lists,
    )
    return Recommendations(ranks, lists)
