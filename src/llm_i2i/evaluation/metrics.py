"""Metrics from ranks and lists, vectorised.

With one target per user, all accuracy metrics are functions of its rank (1-based; 0 = not ranked):
recall = hit rate = [rank <= k], NDCG = 1 / log2(rank + 1), MRR = MAP = 1 / rank within k, else 0.
"""

from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import Final, cast

import numpy as np

from llm_i2i.arrays import Array
from llm_i2i.measures import gini, mrr_at_k, ndcg_at_k, recall_at_k

ACCURACY: Final = MappingProxyType(
    {"recall": recall_at_k, "ndcg": ndcg_at_k, "hit_rate": recall_at_k, "mrr": mrr_at_k, "map": mrr_at_k}
)


def per_user_metric(name: str, ranks: Array) -> Array:
    """Return a metric such as `ndcg@10` for every user.

    Args:
        name: METRIC@K.
        ranks: int (n_users,), as of `schema.PER_USER`.

    Raises:
        KeyError: Unknown metric.
    """
    metric, _, k = name.partition("@")
    return cast("Callable[[Array, int], Array]", ACCURACY[metric])(np.asarray(ranks), int(k))


def accuracy(ranks: Array, ks: Sequence[int]) -> dict[str, float]:
    """Return the means over users: recall, ndcg, hit_rate, mrr, map at each k.

    Args:
        ranks: int (n_users,), at least one.
        ks: Cut-offs.
    """
    return {f"{name}@{k}": float(of(ranks, k).mean()) for k in ks for name, of in ACCURACY.items()}


def ranks_in_lists(lists: Sequence[Sequence[str]], targets: Sequence[str]) -> Array:
    """Return the 1-based place of each user's target in its list, int64 (n_users,), 0 = not there.

    Args:
        lists: Item ids per user, best first.
        targets: One item id per user.
    """
    places = [
        list(found).index(target) + 1 if target in found else 0 for found, target in zip(lists, targets, strict=True)
    ]
    return np.asarray(places, dtype=np.int64)


def list_metrics(lists: Array, *, n_train: Array, tail: Array, long_tail: Array) -> dict[str, float]:
    """Return what the lists show, whoever likes it; K is their length.

    coverage: share of the catalogue that some list shows. gini: of the number of times each catalogue
    item is shown, 0 = all alike. average_popularity: mean training count of a shown item. tail_exposure,
    long_tail_exposure: share of shown items from bucket tail, of long-tail items. novelty: mean
    -log2(training count / all training interactions), a count of 0 taken as 1 (Zhou et al. 2010).
    The last four are left out if no list shows anything.

    Args:
        lists: int32 (n_users, K), item indices, -1 behind the end.
        n_train: int64 (n_items,) training counts.
        tail: bool (n_items,) bucket tail.
        long_tail: bool (n_items,).
    """
    k, n_items = lists.shape[1], len(n_train)
    shown = lists[lists >= 0]
    exposure = np.bincount(shown, minlength=n_items)
    values = {f"coverage@{k}": float((exposure > 0).mean()), f"gini@{k}": gini(exposure)}
    if shown.size:
        share = np.maximum(n_train, 1) / max(1, int(n_train.sum()))
        values[f"average_popularity@{k}"] = float(n_train[shown].mean())
        values[f"tail_exposure@{k}"] = float(tail[shown].mean())
        values[f"long_tail_exposure@{k}"] = float(long_tail[shown].mean())
        values[f"novelty@{k}"] = float(-np.log2(share)[shown].mean())
    return values
