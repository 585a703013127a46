"""The catalogue's numbering: an item's index is its row in items.parquet; and users' histories in these indices."""

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd

from llm_i2i.arrays import Array, FloatArray, IntArray
from llm_i2i.errors import ArtifactError
from llm_i2i.schema import ITEM_ID, POSITION, USER_ID

Key = TypeVar("Key")


@dataclass(frozen=True)
class Histories:
    """Item histories of users, oldest first: user n took `items[bounds[n]:bounds[n + 1]]`.

    Attributes:
        bounds: int64 (n_users + 1,).
        items: int32 (n,) item indices.
    """

    bounds: Array
    items: Array


def item_indices(ids: pd.Series, items: pd.DataFrame, *, where: str) -> IntArray:
    """The item index of each id.

    Args:
        ids: Item ids, shape (n,).
        items: schema.ITEMS: the row number is the item index.
        where: What holds the ids, for the message.

    Returns:
        int64 (n,).

    Raises:
        ArtifactError: An id is null or not in the catalogue, or the catalogue holds an id twice.
    """
    index = pd.Index(items[ITEM_ID])
    if not index.is_unique:
        first = index[index.duplicated()][0]
        raise ArtifactError("items", f"item {first} is there twice", "unique item_id")
    indices: IntArray = np.asarray(index.get_indexer(pd.Index(ids)), dtype=np.int64)
    unknown = indices < 0
    if unknown.any():
        first = ids.to_numpy()[unknown][0]
        found = f"{int(unknown.sum()):,} rows name items that are not in the catalogue (first: {first})"
        raise ArtifactError(where, found, "item_id of items.parquet")
    return indices


def read_text_vectors(path: Path, items: pd.DataFrame) -> FloatArray:
    """The vectors of stage encode_text, float32 (n_items, n_dimensions).

    Raises:
        ArtifactError: The file is missing, unreadable or of another catalogue.
    """
    try:
        vectors: FloatArray = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ArtifactError(str(path), f"unreadable ({error})", "an array", "run `dvc repro`") from error
    if vectors.ndim != 2 or len(vectors) != len(items):
        raise ArtifactError(
            str(path), f"shape {vectors.shape}", f"one row for each of {len(items):,} items", "run `dvc repro`"
        )
    return vectors


def histories_of(users: pd.Series, interactions: pd.DataFrame, items: pd.DataFrame) -> Histories:
    """Each user's items, oldest first; a user without interactions has an empty history.

    Args:
        users: Unique user ids, in the order wanted.
        interactions: schema.INTERACTIONS; other users' rows are ignored.
        items: schema.ITEMS.

    Raises:
        ArtifactError: An item is not in the catalogue.
    """
    rows = pd.Index(users).get_indexer(pd.Index(interactions[USER_ID]))
    wanted = rows >= 0
    rows, kept = rows[wanted], interactions.loc[wanted]
    taken = item_indices(kept[ITEM_ID], items, where="interactions")
    order = np.lexsort((kept[POSITION].to_numpy(), rows))
    bounds = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(users)))])
    return Histories(bounds.astype(np.int64), taken[order].astype(np.int32))


def histories_by_user(interactions: pd.DataFrame, items: pd.DataFrame) -> dict[str, IntArray]:
    """Each user's items by user id, oldest first, users sorted by id.

    Args:
        interactions: schema.INTERACTIONS.
        items: schema.ITEMS.

    Returns:
        User id to int64 item indices.

    Raises:
        ArtifactError: An item is not in the catalogue.
    """
    users = pd.Series(sorted(interactions[USER_ID].unique()), dtype="str")
    histories = histories_of(users, interactions, items)
    parts = np.split(histories.items.astype(np.int64), histories.bounds[1:-1])
    return dict(zip(users, parts, strict=True))


def targets_by_user(held_out: pd.DataFrame, items: pd.DataFrame) -> dict[str, int]:
    """The item index held out of each user (schema.HELD_OUT)."""
    indices = item_indices(held_out[ITEM_ID], items, where="held_out.parquet")
    return dict(zip(held_out[USER_ID], map(int, indices), strict=True))


def without_rows(rows: pd.DataFrame, others: pd.DataFrame) -> pd.DataFrame:
    """The rows whose (user_id, item_id) is not among the others'; their order and index stay."""
    pair = [USER_ID, ITEM_ID]
    return rows[~pd.MultiIndex.from_frame(rows[pair]).isin(pd.MultiIndex.from_frame(others[pair]))]


def sample_keys(keys: list[Key], size: int, *, seed: int) -> list[Key]:
    """A seeded sample of `size` keys, e.g. user ids, in their given order; all if `size` is 0 or not smaller."""
    if size == 0 or size >= len(keys):
        return keys
    chosen = np.random.default_rng(seed).choice(len(keys), size=size, replace=False)
    return [keys[i] for i in np.sort(chosen)]
