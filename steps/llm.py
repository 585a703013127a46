"""What every stage that runs an LLM reads."""

import pandas as pd

from llm_i2i.catalogue import read_text_vectors
from llm_i2i.llm.identifiers import read_identifiers
from llm_i2i.llm.role import LlmSetup, llm_setup
from llm_i2i.params import Params
from llm_i2i.schema import IDENTIFIERS, ITEM_ID, ITEMS, USER_ID, read_table
from steps import paths


def read_setup(params: Params) -> LlmSetup:
    """The catalogue with its names and text vectors, the base model, runtime and seed.

    After an update these are the items that stage identify has named: later ones have no name before the next training.
    """
    items = read_table(paths.ITEMS, ITEMS)
    if params.update.retrain_after:
        named = items[ITEM_ID].isin(read_table(paths.NAMES, IDENTIFIERS)[ITEM_ID]).to_numpy()
        if not named.all():
            text, items = read_text_vectors(paths.TEXT_VECTORS, items)[named], items[named].reset_index(drop=True)
            names = read_identifiers(paths.IDENTIFIERS, items)
            return LlmSetup(items, names, text, paths.BASE_MODEL, params.runtime, params.seed)
    return llm_setup(params, items, names=paths.IDENTIFIERS, text=paths.TEXT_VECTORS, base_model=paths.BASE_MODEL)


def with_names(rows: pd.DataFrame, setup: LlmSetup) -> pd.DataFrame:
    """The rows whose item has a name: all but those of an update's new items, which the LLMs cannot read or propose."""
    return rows[rows[ITEM_ID].isin(setup.items[ITEM_ID])].reset_index(drop=True)


def after_others(held_out: pd.DataFrame, train: pd.DataFrame) -> pd.DataFrame:
    """The held-out rows of users who took something else before: one without cannot be asked what comes next."""
    counts = train[USER_ID].value_counts()
    return held_out[held_out[USER_ID].map(counts).fillna(0) > 1].reset_index(drop=True)
