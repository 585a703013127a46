"""A run in a few kilobytes, so that two runs compare when the tables of the first are gone.

Items: the 256 of least hash (a bottom-k sample, the same items in every run that has them), each with hashes of its
words and of its first ten neighbours. Users: for each of 256 parts of the hashes the last byte of the least one (one
permutation hashing: Li, Owen and Zhang 2012, arXiv 1208.1259, kept to b bits: Li and König 2010, arXiv 0910.3349). It
estimates how many users two runs share, and no user can be read off it.
"""

from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Final

import numpy as np
import pandas as pd

from llm_i2i.data.hashing import seeded_hash
from llm_i2i.schema import ITEM_ID

Sketch = dict[str, Any]
SIZE: Final = 256  # items sampled, and parts of the users' hashes
NEIGHBOURS: Final = 10
_SEED: Final = 0
_NOBODY: Final = "--"


def sketch_of(users: pd.Series, items: pd.DataFrame, index: pd.DataFrame | None) -> Sketch:
    """Sketch a run.

    Args:
        users: Every user once, str (n_users,).
        items: The raw catalogue; all its columns but item_id are its words.
        index: schema.INDEX; None where there is none.

    Returns:
        users: text of two characters for each part; items: by item "HASH WORDS NEIGHBOURS", the least hash first, a
        neighbour in four characters. A list, which `dvc metrics` leaves out.
    """
    hashes = seeded_hash(_SEED, items[ITEM_ID])
    order = np.argsort(hashes, kind="stable")[:SIZE]
    chosen = items.iloc[order]
    words = ["\n".join(row) for row in chosen.drop(columns=ITEM_ID).fillna("").itertuples(index=False)]
    beside = _neighbours(chosen[ITEM_ID], index)
    lines = zip(hashes[order], _short(words), beside, strict=True)
    return {"users": [_signature(users)], "items": [f"{one:016x} {text} {near}".rstrip() for one, text, near in lines]}


def _neighbours(item_ids: pd.Series, index: pd.DataFrame | None) -> list[str]:
    near = dict.fromkeys(item_ids, "")
    if index is not None:
        first = index[(index["rank"] <= NEIGHBOURS) & index[ITEM_ID].isin(item_ids)]
        for item, text in zip(first[ITEM_ID], _short(first["neighbour_id"]), strict=True):
            near[item] += text
    return list(near.values())


def _short(texts: Iterable[str]) -> list[str]:
    """Four characters of each text's hash: of two that differ, one pair in 65,536 is taken for equal."""
    return [f"{one & 0xFFFF:04x}" for one in seeded_hash(_SEED, texts)]


def _signature(users: pd.Series) -> str:
    hashes = np.sort(seeded_hash(_SEED, users))
    part = (hashes % SIZE).astype(np.int64)
    held, first = np.unique(part, return_index=True)
    least = dict(zip(held.tolist(), (hashes[first] >> np.uint64(8)) & np.uint64(0xFF), strict=True))
    return "".join(f"{least[n]:02x}" if n in least else _NOBODY for n in range(SIZE))


def users_gone(before: Sketch, now: Sketch, n_before: float, n_now: float) -> float:
    """Share of the users before who are there no more, as the sketches estimate it.

    Args:
        before: The earlier run's.
        now: The later run's.
        n_before: Its number of users.
        n_now: The same.
    """
    (one,), (other,) = before["users"], now["users"]
    parts = [(one[n : n + 2], other[n : n + 2]) for n in range(0, 2 * SIZE, 2)]
    held = [(a, b) for a, b in parts if (a, b) != (_NOBODY, _NOBODY)]
    equal = sum(a == b for a, b in held) / max(1, len(held))
    alike = max(0.0, (equal - 1 / 256) / (1 - 1 / 256))  # unequal users' bytes agree by chance
    return float(np.clip(1.0 - alike / (1.0 + alike) * (n_before + n_now) / n_before, 0.0, 1.0))


def items_changed(before: Sketch, now: Sketch) -> dict[str, float]:
    """What became of the sampled items: shares, each left out where no item tells.

    Returns:
        items_gone; of those that stayed texts_changed; of those with neighbours before, neighbours_changed: more than
        half of these are no longer among the first ten (left out too where the later run has no index).
    """
    old, new = (_read(tuple(sketch["items"])) for sketch in (before, now))
    # A full sample knows nothing of the items above its greatest hash.
    last = max(new) if len(new) == SIZE else "g"  # greater than every hash
    seen = [item for item in old if item <= last]
    pairs = [(old[item], new[item]) for item in seen if item in new]
    has_index = any(near for _, near in new.values())
    found = {
        "items_gone": [item not in new for item in seen],
        "texts_changed": [words != others for (words, _), (others, _) in pairs],
        "neighbours_changed": [2 * len(one & other) < len(one) for (_, one), (_, other) in pairs if has_index and one],
    }
    return {name: round(float(np.mean(values)), 6) for name, values in found.items() if values}


@lru_cache(maxsize=64)  # each run is compared with several others
def _read(lines: tuple[str, ...]) -> dict[str, tuple[str, frozenset[str]]]:
    """Hash of the words and those of the neighbours, by item."""
    read = (line.split(" ") for line in lines)
    return {item: (words, frozenset(_four("".join(near)))) for item, words, *near in read}


def _four(text: str) -> list[str]:
    return [text[n : n + 4] for n in range(0, len(text), 4)]
