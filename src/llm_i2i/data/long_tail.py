"""The catalogue: each item's count in train, its popularity group, and the words an LLM knows it by."""

import logging
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from llm_i2i.data.hashing import seeded_hash
from llm_i2i.data.item_text import unique_texts
from llm_i2i.errors import DataError
from llm_i2i.params import TagParams
from llm_i2i.schema import IS_LONG_TAIL, ITEM_ID, ITEMS, TAIL

logger = logging.getLogger(__name__)

# Further columns of the raw items table that go along, where given: features for prompts and reports.
EXTRA_TEXT: Final = ("category", "brand", "year")


def tag_items(items: pd.DataFrame, train: pd.DataFrame, *, params: TagParams, seed: int) -> pd.DataFrame:
    """Tag every item of the catalogue by its number of *training* interactions.

    is_long_tail: the least frequent `long_tail_share` of the items that occur in train (Jang et al. call the
    bottom 20 % by frequency long tail), ties by seeded hash. bucket: cold = 0 interactions, tail =
    1..`tail_max_count`, head = the most frequent `head_share` of the items that occur in train, as far as
    they are not tail, mid = the rest.

    Args:
        items: item_id, title and optional category, brand, year (str, may be missing).
        train: schema.INTERACTIONS; only item_id counts.
        params: Shares and limits.
        seed: Of the order of equally frequent items.

    Returns:
        schema.ITEMS and those of `EXTRA_TEXT` that `items` has (missing = ""), sorted by item_id.

    Raises:
        DataError: The catalogue is empty or holds an item twice, or train has items that it lacks.
    """
    check_items(items, train)
    return tag_counted(items, train[ITEM_ID].value_counts(), params=params, seed=seed)


def tag_counted(items: pd.DataFrame, counts: pd.Series, *, params: TagParams, seed: int) -> pd.DataFrame:
    """Do the same with the training interactions counted, int64 by item_id, and both tables checked."""
    catalogue = items.sort_values(ITEM_ID, ignore_index=True)
    extra = [column for column in EXTRA_TEXT if column in catalogue]
    words = catalogue[["title", *extra]].astype("str").fillna("")
    n_train: NDArray[np.int64] = catalogue[ITEM_ID].map(counts).fillna(0).to_numpy().astype(np.int64)
    tie = seeded_hash(seed, catalogue[ITEM_ID])
    tagged = pd.DataFrame(
        {
            ITEM_ID: catalogue[ITEM_ID],
            "title": words["title"],
            "text": unique_texts(catalogue[[ITEM_ID]].join(words)),
            "n_train": n_train,
            "bucket": _buckets(n_train, tie, params),
            IS_LONG_TAIL: _least_frequent(n_train, tie, params.long_tail_share),
        }
    ).astype(ITEMS)
    tagged[extra] = words[extra]
    logger.info(
        "tag: %s items, %s of them long-tail; buckets: %s",
        f"{len(tagged):,}",
        f"{int(tagged[IS_LONG_TAIL].sum()):,}",
        ", ".join(f"{bucket} {n:,}" for bucket, n in tagged["bucket"].value_counts().sort_index().items()),
    )
    return tagged


def long_tail_curve(items: pd.DataFrame) -> pd.DataFrame:
    """The popularity curve of the catalogue, for a plot.

    Args:
        items: schema.ITEMS.

    Returns:
        rank (int64, 1 = most frequent), n_train (int64, falling), is_long_tail (bool); one row per item.
    """
    # Within equal counts the long tail comes last, so that the curve has one border, not many.
    curve = items.sort_values(["n_train", IS_LONG_TAIL, ITEM_ID], ascending=[False, True, True])
    curve = curve[["n_train", IS_LONG_TAIL]].reset_index(drop=True)
    curve.insert(0, "rank", np.arange(1, len(curve) + 1))
    return curve


def check_items(items: pd.DataFrame, train: pd.DataFrame) -> None:
    """Raise DataError as `tag_items` does."""
    if items.empty:
        raise DataError("items", "the catalogue is empty", "at least one item", "bring an items table with rows")
    twice = items.loc[items[ITEM_ID].duplicated(), ITEM_ID]
    if len(twice):
        found = f"{len(twice):,} item_id occur again (first: {twice.iloc[0]!r})"
        raise DataError("items", found, "one row per item", "drop the duplicates")
    unknown = train.loc[~train[ITEM_ID].isin(items[ITEM_ID]), ITEM_ID].unique()
    if len(unknown):
        found = f"{len(unknown):,} items of train are not in the catalogue (first: {unknown[0]!r})"
        raise DataError("items", found, "every interacted item in the items table", "add these items")


def _buckets(n_train: NDArray[np.int64], tie: NDArray[np.uint64], params: TagParams) -> NDArray[np.str_]:
    bucket = np.full(len(n_train), "mid", dtype="<U4")
    most_frequent = np.lexsort((tie, -n_train))[: _share_of(params.head_share, n_train)]
    bucket[most_frequent] = "head"
    bucket[n_train <= params.tail_max_count] = TAIL
    bucket[n_train == 0] = "cold"
    return bucket


def _least_frequent(n_train: NDArray[np.int64], tie: NDArray[np.uint64], share: float) -> NDArray[np.bool_]:
    """The share of least frequent items among those that occur in train, shape (n_items,)."""
    order = np.lexsort((tie, n_train))
    trained = order[n_train[order] > 0]
    chosen = np.zeros(len(n_train), dtype=np.bool_)
    chosen[trained[: _share_of(share, n_train)]] = True
    return chosen


def _share_of(share: float, n_train: NDArray[np.int64]) -> int:
    """So many of the items that occur in train, to the nearest whole number."""
    return int(share * np.count_nonzero(n_train) + 0.5)
