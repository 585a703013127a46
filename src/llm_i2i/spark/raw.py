"""The raw interactions as Spark reads them, where it reads them as the local engine does."""

from pathlib import Path
from typing import Final

import pyarrow.parquet as pq
from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as sf
from pyspark.sql.types import DoubleType, FloatType, IntegralType, StringType

from llm_i2i.data.sources import parquet_parts
from llm_i2i.schema import ITEM_ID, POSITION, RATING, TIMESTAMP, USER_ID

FILE: Final = "file_path"  # of the part that holds a row
PLACE: Final = "row_index"  # in that part, from 0
_READ: Final = (USER_ID, ITEM_ID, TIMESTAMP, POSITION, RATING)


def read_interactions(spark: SparkSession, data: Path) -> tuple[DataFrame, str] | None:
    """Read the table, if it is one Parquet table of like parts, with integer times and text or integers as identifiers.

    Args:
        spark: Where.
        data: Folder of the raw tables.

    Returns:
        user_id, item_id (string), timestamp (long; the position where there is no time), rating (double) if given, FILE
        and PLACE, and which column of the file gives the order. None for every other table, a damaged one among them:
        the local engine reads it, or tells what is wrong.
    """
    path = data / "interactions.parquet"
    if list(data.glob("interactions.*")) != [path] or not _are_alike(path):
        return None
    try:
        rows = spark.read.parquet(path.resolve().as_uri())
    except PySparkException:
        return None
    kinds = {field.name: field.dataType for field in rows.schema}
    order = TIMESTAMP if TIMESTAMP in kinds else POSITION
    is_id = all(isinstance(kinds.get(name), StringType | IntegralType) for name in (USER_ID, ITEM_ID))
    is_number = isinstance(kinds.get(RATING, DoubleType()), IntegralType | FloatType | DoubleType)
    if not (is_id and is_number and isinstance(kinds.get(order), IntegralType)):
        return None
    columns = [sf.col(name).cast("string").alias(name) for name in (USER_ID, ITEM_ID)]
    columns.append(sf.col(order).cast("long").alias(TIMESTAMP))
    columns += [sf.col(RATING).cast("double").alias(RATING)] if RATING in kinds else []
    return rows.select(*columns, f"_metadata.{FILE}", f"_metadata.{PLACE}"), order


def _are_alike(path: Path) -> bool:
    """Whether all parts hold the same of the columns read, with the same types, in the same folders `KEY=VALUE`.

    Of several kinds of parts Spark takes one as the rule, and of files at several depths it leaves some out.
    """
    found = set()
    try:
        for part in parquet_parts(path):
            columns = tuple((f.name, str(f.type)) for f in pq.read_schema(part) if f.name in _READ)
            folders = [folder.partition("=") for folder in part.relative_to(path).parts[:-1]]
            if len(dict(columns)) < len(columns) or any(not sign or key in _READ for key, sign, _ in folders):
                return False
            found.add((columns, tuple(key for key, _, _ in folders)))
    except (OSError, ValueError):
        return False
    return len(found) == 1


def is_missing() -> Column:
    """Whether a row of `read_interactions` lacks its user, item or time."""
    user, item, time = (sf.col(name).isNull() for name in (USER_ID, ITEM_ID, TIMESTAMP))
    return user | item | time
