"""Validate by users: the executors compute what rules between rows need, Great Expectations checks on Spark."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pyarrow as pa
from pyspark import StorageLevel
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql import functions as sf

from llm_i2i.data.columns import LONGEST, UNIT_BEGINS, UNITS, MixedUnitsError, unit_of_sizes
from llm_i2i.data.expectations import COMPUTED, ROW, Interactions, validate_interactions, with_computed_columns
from llm_i2i.data.sources import read_items
from llm_i2i.params import ValidateParams
from llm_i2i.schema import ITEM_ID, RATING, TIMESTAMP, USER_ID, decode, encoded_from_arrow
from llm_i2i.spark.raw import FILE, PLACE, is_missing, read_interactions
from llm_i2i.spark.tables import Batches, batches_of, by_user, gathered

_KNOWN: Final = "item_is_known"
_TYPES: Final = {ROW: "long", USER_ID: "string", ITEM_ID: "string", TIMESTAMP: "long", RATING: "double"}


def validate_tables(
    spark: SparkSession, data: Path, *, params: ValidateParams, tail_max_count: int, docs_dir: Path, partition_mb: int
) -> dict[str, Any] | None:
    """Check both raw tables as `llm_i2i.data.expectations.validate_tables` does.

    Args:
        spark: Where.
        data: Folder of the raw tables.
        params: Limits.
        tail_max_count: An item with at most so many interactions counts as a tail item.
        docs_dir: Folder for Great Expectations' Data Docs (HTML).
        partition_mb: Memory of one task's interactions, MiB.

    Returns:
        The same result; None if the interactions are none that `read_interactions` reads, or a cell is missing, not
        finite or a time of more than 18 digits: the local engine reads those, and tells what is wrong.
    """
    found = read_interactions(spark, data)
    parts = found and _parts(found[0])
    if not found or not parts:
        return None
    rows, order = found
    items = read_items(data)
    try:
        unit = UNITS[unit_of_sizes([sum(part[f"unit_{n}"] for part in parts) for n in range(len(UNITS))])]
    except MixedUnitsError:
        return None
    n_rows = sum(part["n_rows"] for part in parts)
    columns = [name for name in _TYPES if name in {ROW, *rows.columns}]
    numbered = rows.join(sf.broadcast(spark.createDataFrame(_places(parts))), FILE)
    known = pa.table({ITEM_ID: pa.array(items[ITEM_ID].dropna().unique(), pa.string())})
    known = spark.createDataFrame(known).withColumn(_KNOWN, sf.lit(True))
    numbered = numbered.withColumn(ROW, sf.col("before") + sf.col(PLACE) + 1)
    numbered = numbered.join(sf.broadcast(known), ITEM_ID, "left").select(*columns, _KNOWN)
    computed = [name for name in COMPUTED if name not in {"has_text", "is_tail"}]
    kinds = ", ".join([f"{name} {_TYPES[name]}" for name in columns] + [f"{name} boolean" for name in computed])
    tasks = by_user(numbered, n_rows, partition_bytes=partition_mb << 20)
    # In the order of the file, in which Great Expectations takes its first samples; read once per group of checks.
    frame = tasks.mapInArrow(partial(_computed, columns=columns), kinds).sort(ROW).persist(StorageLevel.DISK_ONLY)
    try:
        per_item = frame.groupBy(ITEM_ID).count().toArrow().to_pandas().set_index(ITEM_ID)["count"]
        dtypes = {USER_ID: "str", ITEM_ID: "str", TIMESTAMP: "int64", RATING: "float64"}
        interactions = Interactions(
            frame=frame,
            head=pd.DataFrame({name: pd.Series(dtype=dtypes[name]) for name in columns if name != ROW}),
            n_rows=n_rows,
            n_users=frame.select(sf.count_distinct(USER_ID)).head(1)[0][0],
            per_item=per_item,
            order=order,
            unit=unit,
        )
        return validate_interactions(
            interactions, items, params=params, tail_max_count=tail_max_count, docs_dir=docs_dir
        )
    finally:
        frame.unpersist()


def _parts(rows: DataFrame) -> list[Row] | None:
    """Of each file its rows and how many of their times are as large as each unit's first; None for wrong cells."""
    wrong = is_missing() | ~sf.col(TIMESTAMP).between(1 - LONGEST, LONGEST - 1)
    if RATING in rows.columns:
        rating = sf.col(RATING)
        wrong = wrong | rating.isNull() | sf.isnan(rating) | (sf.abs(rating) == float("inf"))
    units = [sf.count_if(sf.abs(sf.col(TIMESTAMP)) >= begin).alias(f"unit_{n}") for n, begin in enumerate(UNIT_BEGINS)]
    counted = rows.groupBy(FILE).agg(sf.count("*").alias("n_rows"), sf.count_if(wrong).alias("n_wrong"), *units)
    try:
        parts = counted.collect()
    except PySparkException:  # a damaged part
        return None
    return None if any(part["n_wrong"] for part in parts) else parts


def _places(parts: list[Row]) -> pa.Table:
    """How many rows come before those of each file, in the order in which the local engine reads them."""
    parts = sorted(parts, key=lambda part: Path(unquote(part[FILE])))
    rows = np.array([part["n_rows"] for part in parts], dtype=np.int64)
    return pa.table({FILE: [part[FILE] for part in parts], "before": np.cumsum(rows) - rows})


def _computed(batches: Batches, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """The rows of some users with what the checks compute."""
    table = gathered(batches)
    if table is None:
        return
    table = table.sort_by(ROW)
    rows = {name: encoded_from_arrow(table[name]) for name in (USER_ID, ITEM_ID)}
    rows |= {name: pd.Series(np.asarray(table[name])) for name in (TIMESTAMP, RATING) if name in columns}
    known = table.filter(table[_KNOWN].fill_null(False))[ITEM_ID].unique()
    frame = with_computed_columns(pd.DataFrame(rows, copy=False), pd.Series(known.to_pandas()))
    ids = {name: pa.array(decode(frame[name]), pa.string()) for name in (USER_ID, ITEM_ID)}
    cells = {name: ids.get(name, table[name]) for name in columns}
    yield from batches_of(pa.table(cells | {name: pa.array(frame[name]) for name in frame if name in COMPUTED}))
