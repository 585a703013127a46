"""Small tables in the contracts' schemas for the tests of this folder."""

import os
from pathlib import Path

import numpy as np
import pandas as pd

from llm_i2i.evaluation import Protocol
from llm_i2i.params import load_params
from llm_i2i.schema import INTERACTIONS, ITEMS

ARD = Path(os.environ.get("LLM_I2I_ARD", Path(__file__).parents[4] / "shared" / "ard"))


def protocol(**changes) -> Protocol:
    """The protocol of params.yaml with some values changed."""
    return Protocol.from_params(load_params()).model_copy(update=changes)


def leave_one_out(interactions: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Split rows of (user_id, item_id, position) by position, for users with at least three rows."""
    table = interactions.assign(timestamp=interactions["position"]).astype(INTERACTIONS)
    table = table.sort_values(["user_id", "position"]).reset_index(drop=True)
    left = table.groupby("user_id")["position"].transform("max") - table["position"]
    long = table.groupby("user_id")["position"].transform("size") >= 3
    return table[(left >= 2) | ~long], table[(left == 1) & long], table[(left == 0) & long]


def catalogue(item_ids, train: pd.DataFrame) -> pd.DataFrame:
    """Tag items: cold 0, tail 1..5, head the most frequent fifth, mid the rest; long tail the bottom fifth."""
    ids = pd.Series(sorted(set(item_ids)), dtype="str")
    count = ids.map(train["item_id"].value_counts()).fillna(0).astype("int64").to_numpy()
    trained = np.sort(count[count > 0])
    bucket = np.where(count >= trained[int(0.8 * len(trained))], "head", "mid")
    bucket = np.where(count == 0, "cold", np.where(count <= 5, "tail", bucket))
    table = {"item_id": ids, "title": ids, "text": ids, "n_train": count, "bucket": bucket}
    return pd.DataFrame(table | {"is_long_tail": (count > 0) & (count <= trained[len(trained) // 5])}).astype(ITEMS)


def random_interactions(n_users: int = 120, n_items: int = 60, seed: int = 0) -> pd.DataFrame:
    """Histories of 3 to 12 distinct items, popular items first in line."""
    generator = np.random.default_rng(seed)
    weight = 1.0 / np.arange(1, n_items + 1)
    rows = [
        (f"u{user:04d}", f"i{item:03d}", position)
        for user in range(n_users)
        for position, item in enumerate(
            generator.choice(n_items, generator.integers(3, 13), replace=False, p=weight / weight.sum())
        )
    ]
    return pd.DataFrame(rows, columns=["user_id", "item_id", "position"])


def as_fused(train: pd.DataFrame) -> pd.DataFrame:
    """Turn interactions into schema.FUSED."""
    table = train[["user_id", "item_id"]].assign(source="real", weight=np.float32(1.0))
    return table.astype({"source": "str"})


def read_ard(name: str) -> pd.DataFrame:
    """Read one ARD data set: user_id, item_id, position."""
    types = {"user_id": "str", "item_id": "str", "position": "int32"}
    return pd.read_csv(ARD / name / "interactions.csv", dtype=types)
