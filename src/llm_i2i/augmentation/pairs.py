"""Pairs of user and item as integers, for tables whose identifiers have codes in common."""

from typing import Final

import numpy as np
import pandas as pd

from llm_i2i.arrays import Array, IntArray
from llm_i2i.schema import ITEM_ID, USER_ID, common_codes, encode

PAIR: Final = [USER_ID, ITEM_ID]


def with_common_codes(*tables: pd.DataFrame) -> list[pd.DataFrame]:
    """The tables with user_id and item_id encoded (schema.encode), equal codes for equal ids in all of them.

    Args:
        tables: user_id and item_id (str, encoded or not) and any further columns.
    """
    users, items = (common_codes(*(encode(table[name]) for table in tables)) for name in PAIR)
    return [table.assign(user_id=u, item_id=i) for table, u, i in zip(tables, users, items, strict=True)]


def codes_of(column: pd.Series) -> Array:
    """The codes of an encoded column, signed integers (n,)."""
    return column.cat.codes.to_numpy()


def keys(table: pd.DataFrame) -> IntArray:
    """One integer per pair, in the order of (user_id, item_id), int64 (n,).

    Args:
        table: Encoded user_id and item_id; keys of tables with common codes compare.
    """
    n_items = len(table[ITEM_ID].cat.categories) + 1  # one more for a missing item
    found: IntArray = codes_of(table[USER_ID]).astype(np.int64) * n_items + codes_of(table[ITEM_ID])
    return found


def among(table: pd.DataFrame, others: pd.DataFrame) -> Array:
    """Which pairs of a table the other holds too; both have common codes. Shape (n,)."""
    return pd.Series(keys(table)).isin(keys(others)).to_numpy()


def place_in_group(column: pd.Series) -> Array:
    """How many rows above have the same code, int64 (n,)."""
    codes = codes_of(column)
    order = np.argsort(codes, kind="stable")
    sizes = np.bincount(codes)
    place = np.arange(len(codes))
    place -= np.repeat(np.cumsum(sizes) - sizes, sizes)
    found = np.empty_like(place)
    found[order] = place
    return found
