"""Swing, item-kNN, BM25 and popularity by ranges of items.

Rows of different items need nothing of each other. So the catalogue is cut into ranges, each user's list goes once to
every range of which it holds an item, and a task runs the local kernel on what it got: all users of its items in the
order of their ids, with their whole lists. Every sum is therefore one that the local code makes, in the same order.
What depends on the count of a user or an item alone comes from the driver as a table, so that executors of another kind
of CPU cannot round it differently.
"""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pyspark import Broadcast
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as sf
from scipy import sparse

from llm_i2i.arrays import Array
from llm_i2i.errors import ArtifactError, DataError
from llm_i2i.i2i._kernels import overlap_rows, swing_rows
from llm_i2i.i2i._similar import Similar, check_number, empty_rows, heaviest_first
from llm_i2i.i2i.bm25 import weights as bm25_weights
from llm_i2i.i2i.index import to_index
from llm_i2i.i2i.item_knn import weights as item_knn_weights
from llm_i2i.i2i.popularity import of_counts
from llm_i2i.i2i.swing import SwingOptions, Terms, terms_of
from llm_i2i.i2i.train import options_of
from llm_i2i.i2i.user_items import pointers, row_pointers, transposed
from llm_i2i.params import TrainI2iParams
from llm_i2i.schema import USER_ID
from llm_i2i.spark.tables import ITEM, Batches, batches_of, by_user, check_items, gathered, lists_of, read, with_indices

log = logging.getLogger(__name__)
MODELS: Final = ("swing", "item_knn", "bm25", "popularity")
LISTS: Final = "items"  # list of int32, ascending: the items of a user
# What a worker holds at its peak for each entry of the lists that it got: Arrow's copies, the matrix, its transpose.
BYTES_PER_ENTRY: Final = 48
_SENT: Final = 1 << 22  # entries of lists handed over at a time


@dataclass(frozen=True)
class Counts:
    """What the driver knows of the interactions.

    Attributes:
        n_users: Users.
        n_entries: Interactions.
        longest: Items of the user with most.
        users: int64 (n_items,), users of each item.
        entries: int64 (n_items,), interactions of all users of each item: what its row is computed from.
    """

    n_users: int
    n_entries: int
    longest: int
    users: Array
    entries: Array


def train_index(
    spark: SparkSession, *, model: str, fused: Path, items: pd.DataFrame, params: TrainI2iParams, partition_mb: int
) -> pd.DataFrame:
    """Train what `llm_i2i.i2i.train.train_index` trains, for the models of `MODELS`.

    Args:
        spark: Where.
        model: One of train_i2i.models.
        fused: schema.FUSED.
        items: schema.ITEMS.
        params: Section train_i2i.
        partition_mb: Memory of the lists of one task, MiB.

    Returns:
        schema.INDEX, encoded, equal bit for bit to that of the local engine.

    Raises:
        ArtifactError: `fused` is malformed.
        DataError: A weight or a score overflows.
        ParamsError: An option is out of range.
    """
    name, options, top_k = options_of(model, params)
    partition_bytes = partition_mb << 20
    lists = user_lists(read(spark, fused), items, partition_bytes=partition_bytes).persist()
    try:
        counts = count(lists, len(items))
        similar = similarities(lists, counts, model=name, options=options, top_k=top_k, partition_bytes=partition_bytes)
    finally:
        lists.unpersist()
    rows = to_index(similar, items, encoded=True)
    if rows.empty:
        log.warning("%s: no item has a neighbour", model)
    log.info(
        "%s on Spark: %s users, %s interactions -> %s neighbours for %s of %s items",
        model,
        *(f"{n:,}" for n in (counts.n_users, counts.n_entries, len(rows), _filled(similar), len(items))),
    )
    return rows


def user_lists(rows: DataFrame, items: pd.DataFrame, *, partition_bytes: int) -> DataFrame:
    """Each user's items: user_id and `LISTS`, pairs that occur more than once counted once.

    Args:
        rows: user_id, item_id and, where there is one, weight.
        items: schema.ITEMS.
        partition_bytes: Memory of a task.

    Raises:
        ArtifactError: As of `user_items_from_frame`.
    """
    numbered = with_indices(rows, items)
    weight = sf.col("weight") if "weight" in rows.columns else sf.lit(1.0)
    broken = [~weight.eqNullSafe(sf.lit(1.0)), sf.col(USER_ID).isNull(), sf.col(ITEM).isNull()]
    found = numbered.agg(sf.count("*"), *(sf.count_if(rule) for rule in broken)).head(1)[0]
    n_rows, n_wrong, n_missing, n_unknown = found
    if not n_rows:
        raise ArtifactError("fused", "holds no rows", "interactions", "lower fuse.threshold or check the input")
    if n_wrong:
        first = numbered.filter(broken[0]).head(1)[0]["weight"]
        said = f"{n_wrong:,} rows have a weight other than 1.0 (first: {first})"
        raise ArtifactError("fused", said, "weight 1.0: the I2I models take binary interactions")
    check_items(numbered, n_unknown, where="fused")
    if n_missing:
        raise ArtifactError("fused", f"{n_missing:,} rows have no user_id")
    users = by_user(numbered, n_rows, partition_bytes=partition_bytes)
    return users.groupBy(USER_ID).agg(sf.sort_array(sf.collect_set(ITEM)).alias(LISTS))


def count(lists: DataFrame, n_items: int) -> Counts:
    """Count users, items and what each item's row is computed from."""
    size = sf.size(LISTS)
    n_users, n_entries, longest = lists.agg(sf.count("*"), sf.sum(size), sf.max(size)).head(1)[0]
    counted = lists.mapInArrow(partial(_count, n_items=n_items), f"{ITEM} int, users long, entries long")
    by_item = counted.groupBy(ITEM).agg(sf.sum("users").alias("users"), sf.sum("entries").alias("entries")).toArrow()
    users, entries = np.zeros((2, n_items), np.int64)
    users[by_item[ITEM]], entries[by_item[ITEM]] = by_item["users"], by_item["entries"]
    return Counts(n_users, n_entries, longest, users, entries)


def _count(batches: Batches, n_items: int) -> Iterator[pa.RecordBatch]:
    users, entries = np.zeros(n_items, np.int64), np.zeros(n_items)  # sums of whole numbers: exact up to 2^53
    for batch in batches:
        bounds, taken = lists_of(batch.column(LISTS))
        lengths = np.diff(bounds)
        users += np.bincount(taken, minlength=n_items)
        entries += np.bincount(taken, weights=np.repeat(lengths, lengths), minlength=n_items)
    met = np.flatnonzero(users)
    columns = {ITEM: met.astype(np.int32), "users": users[met], "entries": entries[met].astype(np.int64)}
    yield from batches_of(pa.table(columns))


def similarities(
    lists: DataFrame, counts: Counts, *, model: str, options: Mapping[str, Any], top_k: int, partition_bytes: int
) -> Similar:
    """Compute the rows of all items.

    Args:
        lists: As of `user_lists`.
        counts: As of `count`.
        model: One of `MODELS`.
        options: The model's own.
        top_k: Neighbours per item at most.
        partition_bytes: Memory of the lists of one task.

    Returns:
        CSR (n_items, n_items), as of the local model.

    Raises:
        DataError: A weight or a score overflows.
        ParamsError: An option is out of range.
    """
    check_number(f"{model} top_k", top_k, minimum=1, whole=True)
    if model == "popularity":
        return of_counts(counts.users, top_k=top_k)
    terms, minimum = _terms(model, options, counts)
    context = lists.sparkSession.sparkContext
    part, n_parts = parts_of(counts, least=context.defaultParallelism, partition_bytes=partition_bytes)
    shared = context.broadcast((part, terms))
    sent = lists.mapInArrow(partial(_send, shared=shared), f"part int, {USER_ID} string, {LISTS} array<int>")
    task = partial(rows_of_range, shared=shared, minimum=minimum, top_k=top_k)
    rows = sent.repartitionById(n_parts, "part").mapInArrow(task, f"{ITEM} int, neighbour int, score float")
    try:
        return _csr(rows.toArrow(), len(counts.users))
    finally:
        shared.destroy()


def _terms(model: str, options: Mapping[str, Any], counts: Counts) -> tuple[tuple[Array, ...], int]:
    """What kernels look up by a user's length or by item, and shared users from which a pair counts."""
    lengths = np.arange(counts.longest + 1)
    if model == "swing":
        swing = SwingOptions(**options)
        return tuple(terms_of(lengths, counts.users, swing)), swing.minimum
    weights = item_knn_weights if model == "item_knn" else bm25_weights
    return weights(lengths, counts.users, **options), 1


def parts_of(counts: Counts, *, least: int, partition_bytes: int) -> tuple[Array, int]:
    """Cut the catalogue into ranges of about equal work, whose users' lists fit the memory of a task.

    Args:
        counts: As of `count`.
        least: Ranges at least, so that every core has one.
        partition_bytes: Memory of a task.

    Returns:
        int32 (n_items,), the range of each item, ascending; and their number.
    """
    budget = max(1, partition_bytes // BYTES_PER_ENTRY)
    total = max(1, int(counts.entries.sum()))
    # A range's lists are at most all lists, and at most what its items' users bring, counted item by item.
    n_parts = least if counts.n_entries <= budget else max(least, -(-total // budget))
    n_parts = min(n_parts, len(counts.entries))
    before = np.cumsum(counts.entries) - counts.entries
    part = np.minimum(before / total * n_parts, n_parts - 1).astype(np.int32)
    log.info("Spark: %s ranges of items, longest list %s of %s items", f"{n_parts:,}", f"{counts.longest:,}",
             f"{len(part):,}")  # fmt: skip
    over = np.minimum(counts.entries, counts.n_entries) > budget
    if over.any():  # an item's row is one task's, whatever its size
        heaviest = int(counts.entries.max()) * BYTES_PER_ENTRY >> 20
        log.warning(
            "Spark: the lists of the users of %s item(s) exceed spark.partition_mb (the most: %s MiB): their tasks "
            "take more memory and end last; drop such users or items, or give executors that much",
            f"{int(over.sum()):,}",
            f"{heaviest:,}",
        )
    return part, n_parts


def _send(batches: Batches, shared: Broadcast[Any]) -> Iterator[pa.RecordBatch]:
    """Each list once to every range that it touches."""
    part, _ = shared.value
    for batch in batches:
        bounds, taken = lists_of(batch.column(LISTS))
        lengths = np.diff(bounds)
        touched = part[taken].astype(np.int64)  # ascending within a list, as items are
        row = np.repeat(np.arange(len(lengths)), lengths)
        is_first = np.append(True, (np.diff(touched) != 0) | (np.diff(row) != 0))[: len(row)]
        row, touched = row[is_first], touched[is_first]
        chunk = np.cumsum(lengths[row]) // _SENT
        for rows in np.split(np.arange(len(row)), np.flatnonzero(np.diff(chunk)) + 1):
            lists = batch.take(pa.array(row[rows]))
            numbers = pa.array(touched[rows].astype(np.int32))
            yield pa.RecordBatch.from_arrays([numbers, *lists.columns], ["part", *lists.schema.names])


def rows_of_range(batches: Batches, shared: Broadcast[Any], minimum: int, top_k: int) -> Iterator[pa.RecordBatch]:
    """The rows of one range's items, by the local kernels on one thread."""
    table = gathered(batches)
    if table is None:
        return
    table = table.take(pc.sort_indices(table[USER_ID]))  # the order in which the local code numbers users
    own = table["part"][0].as_py()
    bounds, taken = lists_of(table[LISTS])
    del table
    part, terms = shared.value
    met, local = np.unique(taken, return_inverse=True)  # numbered anew in the same order: ties fall as they do there
    shape = (len(bounds) - 1, len(met))
    matrix = sparse.csr_array((np.ones(len(local), np.float32), local.astype(np.int32), bounds), shape=shape)
    del local, taken
    by_users, by_item = pointers(matrix), pointers(transposed(matrix))
    order = heaviest_first(by_users[0], by_item, minimum=minimum)
    order = order[part[met[order]] == own]
    found = empty_rows(len(met), top_k)
    lengths = np.diff(by_users[0])
    if len(terms) == len(Terms._fields):
        weight, inverse, self_term, scale = terms
        swing_rows(
            1, order, by_users, by_item, weight[lengths], inverse, self_term[lengths], scale[met], minimum, found
        )
    else:
        gain, scale = terms
        overlap_rows(1, order, by_users, by_item, gain[lengths], scale[met], found)
    yield from batches_of(_filled_rows(found, met))


def _filled_rows(found: tuple[Array, Array, Array], met: Array) -> pa.Table:
    """What the kernel wrote: item, neighbour and score, rows of an item best first."""
    items, scores, sizes = found
    rows = np.flatnonzero(sizes)
    is_filled = np.arange(items.shape[1]) < sizes[rows, None]
    return pa.table(
        {
            ITEM: np.repeat(met[rows], sizes[rows]),
            "neighbour": met[items[rows][is_filled]],
            "score": scores[rows][is_filled].astype(np.float32),
        }
    )


def _csr(rows: pa.Table, n_items: int) -> Similar:
    """The rows of all tasks, which come in the order of the ranges."""
    item, neighbour, score = (np.asarray(rows[name]) for name in (ITEM, "neighbour", "score"))
    if (np.diff(item) < 0).any():
        order = np.argsort(item, kind="stable")
        item, neighbour, score = item[order], neighbour[order], score[order]
    if not np.isfinite(score).all():
        raise DataError("similarity", "a score is not finite", "scores within float32", "use a smaller exponent")
    indptr = row_pointers(np.bincount(item, minlength=n_items))
    matrix = sparse.csr_array((score, neighbour, indptr), shape=(n_items, n_items))
    matrix.has_sorted_indices = False  # the order within a row is the ranking
    return cast("Similar", matrix)


def _filled(similar: Similar) -> int:
    return int((np.diff(similar.indptr) > 0).sum())
