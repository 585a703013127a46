"""The names by which an LLM knows the items: from stage identify to token ids."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from llm_i2i.errors import ArtifactError
from llm_i2i.files import read_json
from llm_i2i.llm.engine.models import load_tokenizer
from llm_i2i.llm.engine.new_tokens import NewTokens, describe_tokens
from llm_i2i.llm.engine.trie import Catalogue, tokenize_catalogue
from llm_i2i.schema import IDENTIFIERS, ITEM_ID, read_table

TABLE = "identifiers.parquet"
TOKENS = "tokens.json"


@dataclass(frozen=True)
class Identifiers:
    """One name per item.

    Attributes:
        texts: Shape (n_items,): unique, one line each, in the order of the catalogue.
        new_tokens: What `texts` are made of; empty if they are words.
    """

    texts: tuple[str, ...]
    new_tokens: tuple[str, ...] = ()


@dataclass(frozen=True)
class Vocabulary:
    """A base model's tokenizer with the new tokens, the items in its ids, and the new tokens' first embeddings."""

    tokenizer: Any
    catalogue: Catalogue
    new_tokens: NewTokens | None


def read_identifiers(folder: Path, items: pd.DataFrame) -> Identifiers:
    """Read what stage identify wrote.

    Args:
        folder: Its output folder.
        items: The catalogue (schema.ITEMS).

    Raises:
        ArtifactError: A file is missing or broken, or names other items than the catalogue's.
    """
    table = read_table(folder / TABLE, IDENTIFIERS)
    new_tokens = read_json(folder / TOKENS, fix="run `dvc repro identify`")
    if table[ITEM_ID].tolist() != items[ITEM_ID].tolist():
        raise ArtifactError(
            str(folder / TABLE),
            f"names {len(table)} items",
            f"the {len(items)} of the catalogue, in its order",
            "run `dvc repro identify`",
        )
    return Identifiers(tuple(table["identifier"]), tuple(new_tokens))


def load_vocabulary(base_model: Path, identifiers: Identifiers, items: pd.DataFrame, *, seed: int) -> Vocabulary:
    """Load the tokenizer and name every item in its ids.

    Args:
        base_model: Output folder of stage base_model.
        identifiers: Of the items.
        items: The catalogue (schema.ITEMS); new tokens start from its texts.
        seed: Of the new tokens' first embeddings.

    Raises:
        BaseModelError: The tokenizer cannot tell two items apart.
    """
    tokenizer = load_tokenizer(base_model, identifiers.new_tokens)
    catalogue = tokenize_catalogue(identifiers.texts, tokenizer, identifiers.new_tokens)
    new = None
    if identifiers.new_tokens:
        new = describe_tokens(tokenizer, identifiers.new_tokens, catalogue.tokens, items["text"].tolist(), seed=seed)
    return Vocabulary(tokenizer, catalogue, new)
