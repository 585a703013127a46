"""Users' item sequences as index arrays."""

import numpy as np
import pandas as pd

from llm_i2i.errors import ArtifactError
from llm_i2i.llm.prompts import GeneratorPrompt
from llm_i2i.llm.trie import Catalogue, IntArray
from llm_i2i.schema import ITEM_ID, POSITION, USER_ID


def item_indices(items: pd.DataFrame, ids: pd.Series) -> IntArray:
    """Row numbers of item ids in the catalogue.

    Args:
        items: The catalogue (schema.ITEMS).
        ids: Item ids.

    Returns:
        int64, same length as `ids`.

    Raises:
        ArtifactError: An id is not in the catalogue.
    """
    found = pd.Index(items[ITEM_ID]).get_indexer(pd.Index(ids))
    if (found < 0).any():
        first = ids.iloc[int((found < 0).argmax())]
        raise ArtifactError(
            "items.parquet",
            f"{(found < 0).sum()} item ids are missing (first: {first})",
            fix="run `dvc repro tag`",
        )
    return np.asarray(found, dtype=np.int64)


def user_sequences(train: pd.DataFrame, items: pd.DataFrame) -> dict[str, IntArray]:
    """Each user's training items in time order, users sorted by id.

    Args:
        train: schema.INTERACTIONS.
        items: schema.ITEMS.

    Returns:
        User id to int64 item indices.
    """
    ordered = train.sort_values([USER_ID, POSITION], kind="stable")
    indices = item_indices(items, ordered[ITEM_ID])
    users, starts = np.unique(ordered[USER_ID].to_numpy(dtype=object).astype(str), return_index=True)
    return dict(zip((str(u) for u in users), np.split(indices, starts[1:]), strict=True))


def sample_keys(keys: list[str], size: int, *, seed: int) -> list[str]:
    """A seeded sample of `size` keys in their given order; all of them if `size` is 0 or not smaller."""
    if size == 0 or size >= len(keys):
        return keys
    chosen = np.random.default_rng(seed).choice(len(keys), size=size, replace=False)
    return [keys[i] for i in np.sort(chosen)]


def recent_that_fit(history: IntArray, lengths: IntArray, room: int) -> IntArray:
    """The longest end of a history whose tokens fit: the oldest items go first, no item is cut.

    Args:
        history: Item indices in time order.
        lengths: int64 (n_items,): tokens of an item.
        room: Tokens there are for the history; below 0 is as 0.
    """
    fits = np.cumsum(lengths[history][::-1]) <= room
    return history[len(history) - int(fits.sum()) :]


def next_item_prompt(
    history: IntArray, prompt: GeneratorPrompt, catalogue: Catalogue, *, max_history: int, context: int
) -> IntArray:
    """What the generator reads before it names the next item: the instruction and the user's last items.

    Args:
        history: Item indices in time order.
        prompt: The instruction.
        catalogue: Token ids of the items.
        max_history: Items at most.
        context: Positions the model knows; the oldest items go if these and the longest answer would not fit.

    Returns:
        int64 (n_tokens,).
    """
    room = context - len(prompt.prefix) - catalogue.tokens.shape[1]
    recent = recent_that_fit(history[-max_history:], catalogue.lengths, room)
    return np.concatenate([prompt.prefix, catalogue.concat(recent)])
