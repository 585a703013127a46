"""Evaluation by users: the index goes to every executor, each user's history to one task, which ranks as locally."""

import logging
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pandas as pd
import pyarrow as pa
from pyspark import Broadcast
from pyspark.sql import SparkSession
from pyspark.sql import functions as sf
from scipy import sparse

from llm_i2i.catalogue import Histories, item_indices
from llm_i2i.evaluation.evaluate import HISTORY, check_tables, measured
from llm_i2i.evaluation.protocol import Protocol
from llm_i2i.i2i.index import from_index
from llm_i2i.i2i.recommend import recommend
from llm_i2i.schema import ITEM_ID, POSITION, USER_ID
from llm_i2i.spark.tables import ITEM, Batches, batches_of, by_user, check_items, gathered, read, with_indices

log = logging.getLogger(__name__)
_RANKED = "row int, rank int, is_repeat boolean, list array<int>"


def evaluate_index(
    spark: SparkSession,
    *,
    index: pd.DataFrame,
    histories: tuple[Path, ...],
    test: pd.DataFrame,
    items: pd.DataFrame,
    protocol: Protocol,
    partition_mb: int,
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Evaluate as `llm_i2i.evaluation.evaluate.evaluate_index` does.

    Args:
        spark: Where.
        index: schema.INDEX, encoded or not.
        histories: Tables of schema.INTERACTIONS: train and valid.
        test: schema.INTERACTIONS, one row per user.
        items: schema.ITEMS.
        protocol: What the numbers mean.
        partition_mb: Memory of one task's interactions, MiB; the index comes on top.

    Returns:
        Metrics and schema.PER_USER, equal bit for bit to those of the local engine.

    Raises:
        ArtifactError: As of the local engine.
    """
    test = test.sort_values(USER_ID, kind="stable").reset_index(drop=True)
    check_tables(test, items)
    similar = from_index(index, items)
    targets = item_indices(test[ITEM_ID], items, where="test")
    asked = spark.createDataFrame(
        pa.table({USER_ID: pa.array(test[USER_ID], pa.string()), "row": np.arange(len(test), dtype=np.int32),
                  "target": targets.astype(np.int32)})
    )  # fmt: skip
    rows = read(spark, histories[0]).select(HISTORY)
    for path in histories[1:]:
        rows = rows.unionByName(read(spark, path).select(HISTORY))
    rows = with_indices(rows.join(asked, USER_ID), items)
    n_rows, n_unknown = rows.agg(sf.count("*"), sf.count_if(sf.col(ITEM).isNull())).head(1)[0]
    check_items(rows, n_unknown, where="interactions")
    rows = by_user(rows, n_rows, partition_bytes=partition_mb << 20).select("row", "target", ITEM, POSITION)
    shared = spark.sparkContext.broadcast((similar.indptr, similar.indices, similar.data))
    top_k = max(protocol.ks)
    query = {"top_k": top_k, "last_m": protocol.last_m, "decay": protocol.decay}
    try:
        found = rows.mapInArrow(partial(_ranked, shared=shared, query=query), _RANKED).toArrow()
    finally:
        shared.destroy()
    # A user without a history has no row there.
    ranks = np.zeros(len(test), np.int32)
    lists = np.full((len(test), min(top_k, len(items))), -1, np.int32)
    place = np.asarray(found["row"])
    ranks[place] = found["rank"]
    lists[place] = np.asarray(found["list"].combine_chunks().flatten()).reshape(len(place), lists.shape[1])
    if repeats := int(np.count_nonzero(found["is_repeat"])):
        log.warning("evaluate: %s test targets are in their user's history and count as not found", f"{repeats:,}")
    metrics, per_user = measured(test, targets, ranks, lists, items=items, protocol=protocol, ks=protocol.ks)
    log.info("evaluate on Spark: %s users, recall@%d %.4f", f"{len(test):,}", top_k,
             metrics["overall"][f"recall@{top_k}"])  # fmt: skip
    return metrics, per_user


def _ranked(batches: Batches, shared: Broadcast[Any], query: dict[str, Any]) -> Iterator[pa.RecordBatch]:
    """Ranks and lists of the users of one task."""
    table = gathered(batches)
    if table is None:
        return
    numba.set_num_threads(1)  # Spark gives every core a task
    indptr, indices, data = shared.value
    n_items = len(indptr) - 1
    similar = sparse.csr_array((data, indices, indptr), shape=(n_items, n_items))
    table = table.sort_by([("row", "ascending"), (POSITION, "ascending")])
    row, taken, target = (np.asarray(table[name]) for name in ("row", ITEM, "target"))
    starts = np.flatnonzero(np.diff(row, prepend=-1))
    bounds = np.append(starts, len(row)).astype(np.int64)
    found = recommend(similar, Histories(bounds, taken), targets=target[starts].astype(np.int64), **query)
    ends = np.arange(len(starts) + 1, dtype=np.int32) * found.lists.shape[1]
    columns = {
        "row": row[starts],
        "rank": found.ranks,
        "is_repeat": np.logical_or.reduceat(taken == target, starts),
        "list": pa.ListArray.from_arrays(pa.array(ends), pa.array(found.lists.ravel())),
    }
    yield from batches_of(pa.table(columns))
