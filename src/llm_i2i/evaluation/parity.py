"""Whether an index, as it is served, ranks as the evaluation did."""

import numpy as np
import pandas as pd

from llm_i2i.catalogue import histories_of
from llm_i2i.i2i.index import from_index
from llm_i2i.i2i.lookup import Lookup
from llm_i2i.i2i.recommend import recommend
from llm_i2i.schema import ITEM_ID, USER_ID

TOP_K = 20


def lookup_differs(
    *,
    index: pd.DataFrame,
    interactions: pd.DataFrame,
    items: pd.DataFrame,
    last_m: int,
    decay: float,
    n_users: int,
    seed: int,
) -> str:
    """Compare `Lookup` with `recommend` on a seeded sample of users.

    Args:
        index: `schema.INDEX`.
        interactions: `schema.INTERACTIONS` of train and valid: the users' histories.
        items: `schema.ITEMS`.
        last_m: Query length, 0 = all.
        decay: Weight of a query item = decay^age.
        n_users: Size of the sample; all users if there are fewer.
        seed: Of the sample.

    Returns:
        The first difference in words; empty if there is none.

    Raises:
        ArtifactError: The index or an item id does not fit the catalogue.
    """
    everyone = np.sort(interactions[USER_ID].unique().astype(object))
    chosen = np.random.default_rng(seed).permutation(everyone)[:n_users]
    histories = histories_of(pd.Series(chosen, dtype="str"), interactions, items)
    ids = items[ITEM_ID].tolist()
    lists = recommend(from_index(index, items), histories, top_k=TOP_K, last_m=last_m, decay=decay).lists.tolist()
    served = Lookup(index)
    for place, (user, offline) in enumerate(zip(chosen, lists, strict=True)):
        taken = histories.items[histories.bounds[place] : histories.bounds[place + 1]].tolist()
        online = served.recommend([ids[item] for item in taken], top_k=TOP_K, last_m=last_m, decay=decay)
        expected = [ids[item] for item in offline if item >= 0]
        if [item for item, _ in online] != expected:
            return f"the online lookup ranks user {user} differently: {online[:3]} against {expected[:3]}"
    return ""
