"""Fuse by ranges of users, where no user's pairs compete with another's: kept and dropped by the executors."""

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pyspark import Broadcast
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as sf

from llm_i2i.augmentation import fusion
from llm_i2i.errors import LlmI2iError
from llm_i2i.params import Arm, FuseParams
from llm_i2i.schema import CONTROLS, ITEM_ID, JUDGED, SOURCE_REAL, USER_ID, decode, encoded_from_arrow
from llm_i2i.spark.tables import ROW_BYTES, Batches, batches_of, gathered, read

log = logging.getLogger(__name__)
_FUSED: Final = f"{USER_ID} string, {ITEM_ID} string, source string, counts string"  # counts: in a task's first row
_TABLE: Final = "table"  # which of fusion.fuse's tables a row is of: train 0, valid 1, scored 2, control 3


@dataclass(frozen=True)
class Sources:
    """The tables of one arm.

    Attributes:
        train: schema.INTERACTIONS.
        valid: schema.INTERACTIONS.
        judged: schema.JUDGED.
        control: Of a control's arm schema.SYNTHETIC, of a filtered one schema.SCORED and rank.
    """

    train: Path
    valid: Path
    judged: Path
    control: Path


def fuse(
    spark: SparkSession, sources: Sources, *, arm: Arm, items: pd.DataFrame, params: FuseParams, partition_mb: int
) -> tuple[pd.DataFrame, dict[str, Any]] | None:
    """Fuse as `llm_i2i.augmentation.fusion.fuse` does.

    Args:
        spark: Where.
        sources: Tables of stages before.
        arm: Which arm.
        items: schema.ITEMS.
        params: Section fuse.
        partition_mb: Memory of one task's rows, MiB.

    Returns:
        The same table, encoded, and the same counts; None where pairs of all users are ranked together (volume,
        quotas, connected_only), or a range of users has an error: the local engine computes that, or tells it.

    Raises:
        ArtifactError: A table is missing.
    """
    if not _is_by_user(arm, params):
        return None
    rows = _rows(spark, sources, arm)
    n_tasks = max(spark.sparkContext.defaultParallelism, -(-rows.count() * ROW_BYTES // (partition_mb << 20)))
    shared = spark.sparkContext.broadcast(items)
    try:
        task = partial(_fused, shared=shared, arm=arm, params=params)
        table = rows.repartitionByRange(n_tasks, USER_ID).mapInArrow(task, _FUSED).toArrow()  # in the order of users
    finally:
        shared.destroy()
    counts = [json.loads(text) for text in table["counts"].drop_null().to_pylist()]
    if not all(counts):
        return None
    columns = {name: encoded_from_arrow(table[name]) for name in (USER_ID, ITEM_ID, "source")}
    fused = pd.DataFrame({**columns, "weight": np.ones(len(table), np.float32)}, copy=False)
    log.info("fuse %s on Spark: %s rows of %d ranges of users", arm, f"{len(fused):,}", len(counts))
    return fused, _total(counts)


def _is_by_user(arm: Arm, params: FuseParams) -> bool:
    rule = params.rule
    alone = rule.mode == "threshold" and not (rule.connected_only or rule.item_quota or rule.tail_quota)
    return alone or arm in {SOURCE_REAL, "no_generator"}


def _rows(spark: SparkSession, sources: Sources, arm: Arm) -> DataFrame:
    """All rows that the arm reads, each with the number of its table."""
    found = [read(spark, path).select(USER_ID, ITEM_ID) for path in (sources.train, sources.valid)]
    if arm != SOURCE_REAL:
        found.append(read(spark, sources.judged).select(*JUDGED))
    numbered = [rows.withColumn(_TABLE, sf.lit(number)) for number, rows in enumerate(found)]
    if fusion.control_of(arm):
        rows = read(spark, sources.control)
        if arm in CONTROLS:
            numbered.append(rows.select(USER_ID, ITEM_ID, "rank", sf.lit(3).alias(_TABLE)))
        else:
            nan = sf.lit(float("nan")).cast("float").alias("logprob")
            numbered.append(rows.select(USER_ID, ITEM_ID, "source", "p_yes", "rank", nan, sf.lit(2).alias(_TABLE)))
    union = numbered[0]
    for rows in numbered[1:]:
        union = union.unionByName(rows, allowMissingColumns=True)
    return union


def _fused(batches: Batches, shared: Broadcast[pd.DataFrame], arm: Arm, params: FuseParams) -> Iterator[pa.RecordBatch]:
    """The rows and counts of one range of users; counts null, as JSON, where the local engine refuses the range."""
    table = gathered(batches)
    if table is None:
        return
    train, valid, scored, control = (table.filter(pc.equal(table[_TABLE], number)) for number in range(4))
    pair = [USER_ID, ITEM_ID]
    no_rows = pd.DataFrame(columns=list(JUDGED)).astype(JUDGED)
    try:
        fused, counts = fusion.fuse(
            arm=arm,
            train=_frame(train.select(pair)),
            valid=_frame(valid.select(pair)),
            scored=no_rows if arm == SOURCE_REAL else _frame(scored.select(list(JUDGED))),
            items=shared.value,
            params=params,
            control=_frame(control.select([*pair, "rank"])) if arm in CONTROLS else None,
        )
    except LlmI2iError:
        yield from batches_of(pa.table({USER_ID: [""], ITEM_ID: [""], "source": [""], "counts": ["null"]}))
        return
    columns = {name: pa.array(decode(fused[name]), pa.string()) for name in (*pair, "source")}
    said = pa.array([json.dumps(counts), *[None] * (len(fused) - 1)], pa.string())
    yield from batches_of(pa.table({**columns, "counts": said}))


def _frame(table: pa.Table) -> pd.DataFrame:
    """Texts encoded, all else as it is."""
    is_text = {field.name: pa.types.is_string(field.type) for field in table.schema}
    return pd.DataFrame(
        {name: encoded_from_arrow(table[name]) if is_text[name] else np.asarray(table[name]) for name in is_text}
    )


def _total(counts: list[dict[str, Any]]) -> dict[str, Any]:
    """The counts of all ranges of users."""
    total = dict(counts[0])
    for name in ("rows", "real_in", "real_kept", "synthetic_in", "synthetic_kept"):
        total[name] = sum(count[name] for count in counts)
    offered, buckets = total["synthetic_in"], total["by_bucket"]
    total["share_kept_synthetic"] = total["synthetic_kept"] / offered if offered else 0.0
    total["by_bucket"] = {
        bucket: {source: sum(count["by_bucket"][bucket][source] for count in counts) for source in sources}
        for bucket, sources in buckets.items()
    }
    return total
