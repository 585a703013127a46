"""Tag: the executors count, the driver, which holds the catalogue, does the rest."""

from pathlib import Path

import pandas as pd
from pyspark.sql import SparkSession

from llm_i2i.data.long_tail import check_items, tag_counted
from llm_i2i.params import TagParams
from llm_i2i.schema import ITEM_ID
from llm_i2i.spark.tables import read


def tag_items(spark: SparkSession, items: pd.DataFrame, train: Path, *, params: TagParams, seed: int) -> pd.DataFrame:
    """Tag as `llm_i2i.data.long_tail.tag_items` does.

    Args:
        spark: Where.
        items: The raw catalogue.
        train: schema.INTERACTIONS.
        params: Section tag.
        seed: Of the order of equally frequent items.

    Raises:
        ArtifactError: There is no such table.
        DataError: As of the local engine.
    """
    counted = read(spark, train).groupBy(ITEM_ID).count().toArrow().to_pandas()
    check_items(items, counted)
    return tag_counted(items, counted.set_index(ITEM_ID)["count"], params=params, seed=seed)
