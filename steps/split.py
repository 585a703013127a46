"""Stage split: hold the last interactions out, by user or by time."""

import logging

from llm_i2i.data.sources import read_raw
from llm_i2i.data.split import Split, split_interactions
from llm_i2i.files import staged, write_json
from llm_i2i.params import Params, load_params
from llm_i2i.schema import HELD_OUT, INTERACTIONS, write_table
from steps import paths
from steps.stage import Outcome, stage_step

logger = logging.getLogger(__name__)


@stage_step
def split() -> Outcome:
    """Split the validated interactions into train, valid and test."""
    params = load_params()
    result = _on_spark(params) or _here(params)
    with staged(paths.SPLIT) as out:
        write_table(result.train, out / paths.TRAIN.name, INTERACTIONS)
        write_table(result.valid, out / paths.VALID.name, INTERACTIONS)
        write_table(result.test, out / paths.TEST.name, INTERACTIONS)
        write_table(result.held_out, out / paths.HELD_OUT.name, HELD_OUT)
        write_json(result.manifest, out / "manifest.json")
    return Outcome((paths.SPLIT,), rows=len(result.train))


def _here(params: Params) -> Split:
    raw = read_raw(paths.DATA, encoded=True)
    return split_interactions(raw.interactions, params=params.split, seed=params.seed, order=raw.order)


def _on_spark(params: Params) -> Split | None:
    """The split by Spark, if it is the engine and reads the table."""
    if params.runtime.engine != "spark":
        return None
    from llm_i2i.spark import split as on_spark  # noqa: PLC0415 - what extra `spark` installs
    from llm_i2i.spark.session import session  # noqa: PLC0415

    with session(params.spark) as spark:
        partition_mb = params.spark.partition_mb
        found = on_spark.split_interactions(
            spark, paths.DATA, params=params.split, seed=params.seed, partition_mb=partition_mb
        )
    if found is None:
        logger.warning("split: Spark reads whole Parquet tables of integer times only; this machine reads all others")
    return found
