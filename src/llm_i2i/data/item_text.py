"""The words by which an LLM knows an item: one line, never empty, no two items alike."""

import re
import unicodedata
from collections import Counter
from typing import Final

import pandas as pd

from llm_i2i.schema import ITEM_ID

MAX_CHARACTERS: Final = 200
# Control characters, line and paragraph separators: they part words.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
# What shows nothing: Unicode's Default_Ignorable_Code_Point, the marks of interlinear notes, surrogates without their
# other half. The empty Braille pattern is a blank.
_INVISIBLE = re.compile(
    "[\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f"
    "\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff\ud800-\udfff]"
)


def one_line(text: str) -> str:
    """Normalise to NFC, drop what cannot be seen, collapse white space, cut at 200 characters."""
    visible = _INVISIBLE.sub("", _CONTROL.sub(" ", text).replace("\u2800", " "))
    return " ".join(unicodedata.normalize("NFC", visible).split())[:MAX_CHARACTERS].rstrip()


def unique_texts(items: pd.DataFrame) -> list[str]:
    """One text per item: its title, told apart by year, category or identifier where titles are equal.

    Args:
        items: item_id, title and optional category, brand, year (str, "" = missing), in a fixed order:
            the order decides which of two equal texts is lengthened last.

    Returns:
        Shape (n_items,): unique, non-empty, one line each; without title the category, the brand or
        "item ITEM_ID" stands in.
    """
    records = [{str(key): one_line(str(value)) for key, value in row.items()} for row in items.to_dict("records")]
    texts = [row["title"] or row.get("category") or row.get("brand") or f"item {row[ITEM_ID]}" for row in records]
    for column in ("year", "category"):
        texts = _told_apart(texts, [row.get(column, "") for row in records])
    return numbered(texts, [row[ITEM_ID] for row in records])


def _told_apart(texts: list[str], details: list[str]) -> list[str]:
    """Append " (detail)" to those of several equal texts that it makes unique."""
    counts = Counter(texts)
    longer = [
        f"{text} ({detail})" if counts[text] > 1 and detail and detail != text else text
        for text, detail in zip(texts, details, strict=True)
    ]
    after = Counter(longer)
    return [new if after[new] == 1 else old for old, new in zip(texts, longer, strict=True)]


def numbered(texts: list[str], item_ids: list[str]) -> list[str]:
    """Append " [item_id]" to every text that still occurs more than once."""
    counts = Counter(texts)
    used = {text for text in texts if counts[text] == 1}
    unique = []
    for text, item_id in zip(texts, item_ids, strict=True):
        longer = text
        while counts[text] > 1 and (longer == text or longer in used):
            longer += f" [{item_id}]"
        used.add(longer)
        unique.append(longer)
    return unique
