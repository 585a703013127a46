"""One entry for all item-to-item models: a fused table in, an index out."""

import logging
from typing import get_args

import pandas as pd

from llm_i2i.errors import ParamsError
from llm_i2i.i2i._similar import Similar
from llm_i2i.i2i.bm25 import bm25
from llm_i2i.i2i.bpr import bpr
from llm_i2i.i2i.index import to_index
from llm_i2i.i2i.item_knn import item_knn
from llm_i2i.i2i.popularity import popular_items
from llm_i2i.i2i.swing import swing
from llm_i2i.i2i.user_items import UserItems, user_items_from_frame
from llm_i2i.i2i.youtube_dnn import youtube_dnn
from llm_i2i.params import Model, TrainI2iParams

log = logging.getLogger(__name__)


def train_index(
    *, model: str, fused: pd.DataFrame, items: pd.DataFrame, params: TrainI2iParams, seed: int
) -> pd.DataFrame:
    """Train an item-to-item model on a fused table.

    Args:
        model: One of `params.Model`.
        fused: `schema.FUSED`.
        items: `schema.ITEMS`.
        params: Section train_i2i.
        seed: Seed of everything random in the model.

    Returns:
        `schema.INDEX`.

    Raises:
        ArtifactError: `fused` or `items` is malformed.
        DataError: Training diverged.
        ParamsError: Unknown model.
    """
    user_items = user_items_from_frame(fused, items)
    similar = _train(model, user_items, params, seed)
    rows = to_index(similar, items)
    if rows.empty:
        # Legal on tiny data: no two users share two items. The evaluation then says reachable_share 0.
        log.warning("%s: no item has a neighbour", model)
    log.info(
        "%s: %s users, %s interactions -> %s neighbours for %s of %s items",
        model,
        f"{user_items.shape[0]:,}",
        f"{user_items.nnz:,}",
        f"{len(rows):,}",
        f"{int((similar.indptr[1:] > similar.indptr[:-1]).sum()):,}",
        f"{len(items):,}",
    )
    return rows


def _train(model: str, user_items: UserItems, params: TrainI2iParams, seed: int) -> Similar:
    """Train by name."""
    if model == "swing":
        return swing(user_items, top_k=params.top_k, seed=seed, **params.swing.model_dump())
    if model == "bpr":
        return bpr(user_items, top_k=params.top_k, seed=seed, **params.bpr.model_dump())
    if model == "item_knn":
        return item_knn(user_items, top_k=params.top_k)
    if model == "bm25":
        return bm25(user_items, top_k=params.top_k, **params.bm25.model_dump())
    if model == "popularity":
        return popular_items(user_items, top_k=params.top_k)
    if model == "youtube_dnn":
        return youtube_dnn(user_items, top_k=params.top_k, seed=seed, **params.youtube_dnn.model_dump())
    raise ParamsError("train_i2i model", f"is {model!r}", " | ".join(get_args(Model)))
