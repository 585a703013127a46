"""Tables between the project folder and Spark: items as indices, all of a user in one task."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as sf

from llm_i2i.arrays import Array
from llm_i2i.errors import ArtifactError
from llm_i2i.schema import ITEM_ID, USER_ID

ITEM: Final = "item"  # int32, the item index: the row in items.parquet
ROW_BYTES: Final = 128  # of one interaction, in Java or in Python
Batches = Iterable[pa.RecordBatch]


def read(spark: SparkSession, path: Path) -> DataFrame:
    """A parquet table of a stage, read by the executors: they must see the project folder where the driver does.

    Raises:
        ArtifactError: There is no such file.
    """
    if not path.exists():
        raise ArtifactError(str(path), "no such file", fix="run `dvc repro`")
    return spark.read.parquet(path.resolve().as_uri())


def with_indices(rows: DataFrame, items: pd.DataFrame) -> DataFrame:
    """Rows with column `item` besides item_id; null where the catalogue has no such item: see `check_items`.

    Args:
        rows: With item_id.
        items: schema.ITEMS.
    """
    numbers = pa.table({ITEM_ID: pa.array(items[ITEM_ID], pa.string()), ITEM: np.arange(len(items), dtype=np.int32)})
    return rows.join(sf.broadcast(rows.sparkSession.createDataFrame(numbers)), ITEM_ID, "left")


def check_items(numbered: DataFrame, n_unknown: int, *, where: str) -> None:
    """Raise ArtifactError if rows of `with_indices`, counted by the caller, name unknown items."""
    if n_unknown:
        first = numbered.filter(sf.col(ITEM).isNull()).head(1)[0][ITEM_ID]
        found = f"{n_unknown:,} rows name items that are not in the catalogue (first: {first})"
        raise ArtifactError(where, found, "item_id of items.parquet")


def by_user(rows: DataFrame, n_rows: int, *, partition_bytes: int) -> DataFrame:
    """The rows, all of a user in one task, in as many tasks as the memory of one asks for.

    Args:
        rows: With user_id.
        n_rows: How many.
        partition_bytes: Memory of a task.
    """
    least = rows.sparkSession.sparkContext.defaultParallelism
    return rows.repartition(max(least, -(-n_rows * ROW_BYTES // partition_bytes)), USER_ID)


def gathered(batches: Batches) -> pa.Table | None:
    """All batches of a task as one table; None where there is no row."""
    found = [batch for batch in batches if batch.num_rows]
    return pa.Table.from_batches(found).combine_chunks() if found else None


def lists_of(column: pa.ChunkedArray | pa.ListArray) -> tuple[Array, Array]:
    """A column of lists as (bounds int64 (n + 1,), values int32), which begin with the first list."""
    lists = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    bounds = np.asarray(lists.offsets, np.int64)
    return bounds - bounds[0], np.asarray(lists.flatten(), np.int32)


def batches_of(table: pa.Table) -> Iterator[pa.RecordBatch]:
    """What a task hands back: at most a million rows at a time."""
    yield from table.to_batches(max_chunksize=1 << 20)
