"""Controls: synthetic pairs by cheap recommenders, for the same users, and as many per user as the generator wrote.

Whatever the generator's pairs gain, these show what pairs of no insight (`random`), of common taste
(`popularity`) and of a plain recommender (`item_knn`) gain at equal volume.
"""

import logging
from itertools import pairwise

import numpy as np
import pandas as pd

from llm_i2i.arrays import Array
from llm_i2i.catalogue import Histories, histories_of
from llm_i2i.data.hashing import seeded_hash
from llm_i2i.errors import ArtifactError, ParamsError
from llm_i2i.i2i import item_knn, popularity, recommend, user_items_from_frame
from llm_i2i.params import Control
from llm_i2i.schema import ITEM_ID, SYNTHETIC, USER_ID

log = logging.getLogger(__name__)
RECOMMENDERS = ("random", "popularity", "item_knn")


def control_rows(
    name: Control, *, train: pd.DataFrame, synthetic: pd.DataFrame, items: pd.DataFrame, seed: int
) -> pd.DataFrame:
    """Write the pairs of a control other than `compact`.

    For each user of `synthetic` as many items, none of them in the user's train.

    random: uniform over the items the user has not taken. popularity: by training count, ties in the order of
    a seeded hash. item_knn: the user's own list from cosine item-kNN (top 100 neighbours, the whole history as
    query), and where that ends, by popularity. Only training rows are read.

    Args:
        name: Which control.
        train: `schema.INTERACTIONS`.
        synthetic: `schema.SYNTHETIC`; only users and how many rows each has count.
        items: `schema.ITEMS`.
        seed: Of everything random.

    Returns:
        `schema.SYNTHETIC` sorted by (user_id, rank), rank 1 the best; logprob NaN and hashes empty, since no
        LLM is involved. A user who has taken nearly the whole catalogue may get fewer rows.

    Raises:
        ArtifactError: A table is malformed, or `synthetic` holds no row.
        ParamsError: Unknown name.
    """
    if name not in RECOMMENDERS:
        raise ParamsError("controls.names", f"holds {name!r}", " | ".join(RECOMMENDERS))
    wanted = synthetic[~synthetic["held_out"]].groupby(USER_ID, sort=True).size()
    if wanted.empty:
        raise ArtifactError("synthetic", "holds no row", "rows of the generator to equal", "run `dvc repro synthesize`")
    users = pd.Series(wanted.index, dtype="str")
    histories = histories_of(users, train, items)
    ranked = _ranked(name, train, histories, items, sizes=wanted.to_numpy(), seed=seed)
    n_users = len(users)
    rows = np.repeat(np.arange(n_users), [len(found) for found in ranked])
    chosen = np.concatenate([np.empty(0, np.int64), *ranked]).astype(np.int64)
    table = pd.DataFrame(
        {
            USER_ID: users.take(rows).to_numpy(),
            ITEM_ID: items[ITEM_ID].take(chosen).to_numpy(),
            "rank": [rank for found in ranked for rank in range(1, len(found) + 1)],
            "logprob": np.float32(np.nan),
            "held_out": False,
            "prompt_sha256": "",
            "template_sha256": "",
            "adapter_sha256": "",
        }
    ).astype(SYNTHETIC)
    log.info("controls: %s wrote %s rows for %s users", name, f"{len(table):,}", f"{n_users:,}")
    return table


def _ranked(
    name: Control, train: pd.DataFrame, histories: Histories, items: pd.DataFrame, *, sizes: Array, seed: int
) -> list[Array]:
    """Each user's items, best first, unseen and distinct, at most `sizes` of them."""
    seen = [histories.items[a:b] for a, b in pairwise(histories.bounds)]
    users = list(zip(seen, sizes, strict=True))
    if name == "random":
        draw, n_items = np.random.default_rng(seed).choice, len(items)
        # As many distinct items as are wanted and taken: without the taken ones, enough are left, all alike.
        ranked = [draw(n_items, min(n_items, n + len(taken)), replace=False) for taken, n in users]
    else:
        user_items = user_items_from_frame(train, items)
        # Most users first, ties by seeded hash.
        order = np.lexsort((seeded_hash(seed, items[ITEM_ID]), -popularity(user_items)))
        ranked = [order[: 2 * n + len(taken)] for taken, n in users]
        if name == "item_knn":
            longest = int(sizes.max(initial=1))
            lists = recommend(item_knn(user_items, top_k=100), histories, top_k=longest).lists
            own_first = zip(lists, ranked, strict=True)
            ranked = [pd.unique(np.concatenate([own[own >= 0], then])) for own, then in own_first]
    return [one[~np.isin(one, taken)][:n].astype(np.int64) for one, (taken, n) in zip(ranked, users, strict=True)]
