"""Users' item sequences as index arrays."""

import numpy as np

from llm_i2i.arrays import IntArray
from llm_i2i.llm.engine.trie import Catalogue
from llm_i2i.llm.prompts import GeneratorPrompt


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
