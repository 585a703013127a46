"""Statistics of synthesized rows: are all allowed, how varied are they, how far do they reach into the tail."""

from typing import Any

import numpy as np
import pandas as pd

from llm_i2i.arrays import IntArray
from llm_i2i.measures import gini
from llm_i2i.schema import ITEM_ID, USER_ID


def validity(
    table: pd.DataFrame, items: pd.DataFrame, train: pd.DataFrame, *, n_users: int, items_per_user: int
) -> dict[str, Any]:
    """Describe synthesized rows, assuming nothing about how they were made.

    Args:
        table: Rows (schema.SYNTHETIC).
        items: Catalogue (schema.ITEMS).
        train: Training interactions (schema.INTERACTIONS).
        n_users: Users asked for.
        items_per_user: Items asked for per user.

    Returns:
        users, rows, rows_requested; valid_rows and valid_share (catalogue items outside the history, each once per
        user); outside_catalogue, in_history, duplicates (rows; each should be 0); short_users (fewer items than
        asked for); distinct_items, share_long_tail, by_bucket; exposure_entropy (nats, over items; its maximum is
        log of the catalogue's size) and exposure_gini (0 = every catalogue item equally often, towards 1 = one
        item only).
    """
    known = table[ITEM_ID].isin(items[ITEM_ID]).to_numpy()
    pairs = pd.MultiIndex.from_frame(table[[USER_ID, ITEM_ID]])
    taken = pairs.isin(pd.MultiIndex.from_frame(train[[USER_ID, ITEM_ID]]))
    repeated = table.duplicated([USER_ID, ITEM_ID]).to_numpy()
    valid = int((known & ~taken & ~repeated).sum())
    merged = table.merge(items[[ITEM_ID, "bucket", "is_long_tail"]], on=ITEM_ID, how="inner", validate="m:1")
    exposure = np.asarray(merged[ITEM_ID].value_counts(), dtype=np.int64)
    every = np.concatenate([exposure, np.zeros(len(items) - len(exposure), dtype=np.int64)])
    full = int((table.groupby(USER_ID).size() >= items_per_user).sum())
    return {
        "users": n_users,
        "rows": len(table),
        "rows_requested": n_users * items_per_user,
        "valid_rows": valid,
        "valid_share": round(valid / max(1, len(table)), 6),
        "outside_catalogue": int((~known).sum()),
        "in_history": int(taken.sum()),
        "duplicates": int(repeated.sum()),
        "short_users": n_users - full,
        "distinct_items": int(table[ITEM_ID].nunique()),
        "share_long_tail": round(float(merged["is_long_tail"].mean()), 6) if len(merged) else 0.0,
        "by_bucket": {str(k): int(v) for k, v in merged["bucket"].value_counts().sort_index().items()},
        "exposure_entropy": round(_entropy(exposure), 6),
        "exposure_gini": round(gini(every), 6),
    }


def _entropy(counts: IntArray) -> float:
    """Shannon entropy of the shares, in nats; 0 for no counts."""
    shares = counts / max(1, counts.sum())
    return float(-(shares * np.log(shares)).sum()) + 0.0
