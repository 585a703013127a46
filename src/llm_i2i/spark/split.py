"""Split by ranges of users: repeats dropped and put in order by the executors, cut and written by the driver."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
import pyarrow as pa
from pyspark.sql import SparkSession
from pyspark.sql import functions as sf

from llm_i2i.data.split import Split, are_sampled, check_order, divided, ordered, without_repeats
from llm_i2i.params import SplitParams
from llm_i2i.schema import ITEM_ID, POSITION, TIMESTAMP, USER_ID, decode, encode, encoded_from_arrow
from llm_i2i.spark.raw import is_missing, read_interactions
from llm_i2i.spark.tables import ROW_BYTES, Batches, batches_of, gathered

# n_exact: repeats of the task's rows in pair and time, in its first row.
_ORDERED: Final = f"{USER_ID} string, {ITEM_ID} string, {TIMESTAMP} long, {POSITION} int, is_tied boolean, n_exact long"


def split_interactions(
    spark: SparkSession, data: Path, *, params: SplitParams, seed: int, partition_mb: int
) -> Split | None:
    """Split as `llm_i2i.data.split.split_interactions` does.

    Args:
        spark: Where.
        data: Folder of the raw tables.
        params: Section split.
        seed: Of ties and samples.
        partition_mb: Memory of one task's interactions, MiB.

    Returns:
        The same split, encoded; None if the interactions are none that `read_interactions` reads, or a cell is missing:
        the local engine reads those, and tells what is wrong.

    Raises:
        DataError: As of the local engine.
    """
    found = read_interactions(spark, data)
    if found is None:
        return None
    raw, order = found
    check_order(params, order)
    raw = raw.select(USER_ID, ITEM_ID, TIMESTAMP)
    n_rows, n_missing = raw.agg(sf.count("*"), sf.count_if(is_missing())).head(1)[0]
    if n_missing or not n_rows:
        return None
    n_tasks = max(spark.sparkContext.defaultParallelism, -(-n_rows * ROW_BYTES // (partition_mb << 20)))
    ranges = raw.repartitionByRange(n_tasks, USER_ID)
    table = ranges.mapInArrow(partial(_ordered, seed=seed), _ORDERED).toArrow()  # tasks in the order of users
    rows = _frame(table).assign(**{POSITION: np.asarray(table[POSITION])})
    tied, n_exact = np.asarray(table["is_tied"]), int(np.asarray(table["n_exact"]).sum())
    del table
    known = {"users": len(rows[USER_ID].cat.categories), "items": len(rows[ITEM_ID].cat.categories)}
    counts = {
        "raw": {"rows": n_rows, **known},
        "without_exact_duplicates": {"rows": n_rows - n_exact, **known},
        "without_repeated_items": {"rows": len(rows), **known},
    }
    if params.max_users:
        kept = are_sampled(rows[USER_ID], params, seed)
        rows, tied = rows[kept].reset_index(drop=True), tied[kept]
    return divided(rows, tied, counts, params=params, seed=seed, as_given=encode)


def _ordered(batches: Batches, seed: int) -> Iterator[pa.RecordBatch]:
    """The rows of one range of users."""
    table = gathered(batches)
    if table is None:
        return
    rows, counts = without_repeats(_frame(table))
    rows, tied = ordered(rows, seed)
    n_exact = np.zeros(len(rows), np.int64)
    n_exact[0] = counts["raw"]["rows"] - counts["without_exact_duplicates"]["rows"]
    ids = {name: pa.array(decode(rows[name]), pa.string()) for name in (USER_ID, ITEM_ID)}
    columns = {**ids, TIMESTAMP: rows[TIMESTAMP], POSITION: rows[POSITION], "is_tied": tied, "n_exact": n_exact}
    yield from batches_of(pa.table(columns))


def _frame(table: pa.Table) -> pd.DataFrame:
    ids = {name: encoded_from_arrow(table[name]) for name in (USER_ID, ITEM_ID)}
    return pd.DataFrame({**ids, TIMESTAMP: np.asarray(table[TIMESTAMP])}, copy=False)
