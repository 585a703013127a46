"""One entry for all item-to-item models: a fused table in, an index out."""

import logging
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import pandas as pd

from llm_i2i.errors import ParamsError
from llm_i2i.i2i._similar import Similar
from llm_i2i.i2i.bm25 import bm25
from llm_i2i.i2i.bpr import bpr
from llm_i2i.i2i.index import to_index
from llm_i2i.i2i.item_knn import item_knn
from llm_i2i.i2i.patch import PATCHED, patched
from llm_i2i.i2i.popularity import popular_items
from llm_i2i.i2i.swing import swing
from llm_i2i.i2i.user_items import UserItems, user_items_from_frame
from llm_i2i.i2i.youtube_dnn import youtube_dnn
from llm_i2i.params import Section, TrainI2iParams
from llm_i2i.schema import ITEM_ID, USER_ID, encode, is_encoded

log = logging.getLogger(__name__)

MODELS: Final[Mapping[str, Callable[..., Similar]]] = MappingProxyType(
    {
        "swing": swing,
        "bpr": bpr,
        "item_knn": item_knn,
        "bm25": bm25,
        "popularity": popular_items,
        "youtube_dnn": youtube_dnn,
    }
)
TUNED: Final = "_tuned"  # suffix of a model whose options and query were chosen on valid
QUERY_OPTIONS: Final = ("last_m", "decay")
_SEEDED: Final = ("bpr", "youtube_dnn")


def train_index(
    *, model: str, fused: pd.DataFrame, items: pd.DataFrame, params: TrainI2iParams, seed: int,
    kept: Path | None = None,
) -> pd.DataFrame:  # fmt: skip
    """Train an item-to-item model on a fused table.

    Args:
        model: One of `MODELS`, or that with suffix `_tuned`.
        fused: `schema.FUSED`.
        items: `schema.ITEMS`.
        params: Section train_i2i.
        seed: Seed of everything random in the model.
        kept: File with the last index, whose untouched rows are taken over, and afterwards with this one; None = all is
            computed and nothing kept.

    Returns:
        `schema.INDEX`, encoded if `fused` is.

    Raises:
        ArtifactError: `fused` or `items` is malformed.
        TrainingError: The training diverges.
        ParamsError: Unknown model.
    """
    encoded = is_encoded(fused[USER_ID])
    user_items = user_items_from_frame(fused, items)
    name, options, top_k = options_of(model, params)
    users = encode(fused[USER_ID]).cat if kept is not None and name in PATCHED else None
    del fused  # where the caller holds it no longer, either, its memory is the training's
    if kept is None or users is None:
        similar = train_similar(name, user_items, options=options, top_k=top_k, seed=seed)
    else:
        ids = (users.categories[np.unique(users.codes)], pd.Index(items[ITEM_ID]))
        compute = partial(MODELS[name], user_items, top_k=top_k, **options)
        counts = name != "swing" or options.get("popularity_exponent", 0.0) != 0.0
        similar = patched(user_items, ids, kept, f"{name} {options} {top_k}", counts=counts, compute=compute)
    rows = to_index(similar, items, encoded=encoded)
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


def train_similar(model: str, user_items: UserItems, *, options: Mapping[str, Any], top_k: int, seed: int) -> Similar:
    """Train a model on an interaction matrix.

    Args:
        model: One of `MODELS`.
        user_items: Binary CSR (n_users, n_items).
        options: The model's own options.
        top_k: Neighbours per item at most.
        seed: Seed of everything random in the model.

    Returns:
        CSR (n_items, n_items), each row best first.

    Raises:
        ParamsError: Unknown model, or an option is out of range.
    """
    if model not in MODELS:
        raise ParamsError("train_i2i model", f"is {model!r}", " | ".join(MODELS))
    seeded = {"seed": seed} if model in _SEEDED else {}
    trained: Similar = MODELS[model](user_items, top_k=top_k, **options, **seeded)
    return trained


def options_of(model: str, params: TrainI2iParams) -> tuple[str, dict[str, Any], int]:
    """Read what a model name of params.yaml stands for.

    Args:
        model: Name such as `swing` or `swing_tuned`.
        params: Section train_i2i.

    Returns:
        The model, one of `MODELS`; its own options; neighbours per item.

    Raises:
        ParamsError: There is no such section.
    """
    section = getattr(params, model, None)
    if not isinstance(section, Section):
        raise ParamsError("train_i2i model", f"is {model!r}", "a model with a section in train_i2i")
    options = section.model_dump()
    for name in QUERY_OPTIONS:  # they are the evaluation's
        options.pop(name, None)
    return model.removesuffix(TUNED), options, options.pop("top_k", params.top_k)
