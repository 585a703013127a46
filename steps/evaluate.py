"""Stage evaluate: measure one index on the test items."""

from typing import Any

import pandas as pd

from llm_i2i.evaluation.evaluate import HISTORY, evaluate_index
from llm_i2i.evaluation.protocol import Protocol
from llm_i2i.files import staged, write_json
from llm_i2i.params import Params, load_params
from llm_i2i.schema import INDEX, INTERACTIONS, ITEMS, PER_USER, read_table, write_table
from steps import paths
from steps.stage import Outcome, stage_step


@stage_step
def evaluate(model: str, arm: str) -> Outcome:
    """Rank the whole catalogue for each test user and compute every metric.

    Args:
        model: One of train_i2i.models.
        arm: One of fuse.arms.
    """
    name, params = f"{model}-{arm}", load_params()
    given = {
        "index": read_table(paths.I2I / name / "index.parquet", INDEX, encoded=True),
        "test": read_table(paths.TEST, INTERACTIONS),
        "items": read_table(paths.ITEMS, ITEMS),
        "protocol": Protocol.from_params(params, model=model),
    }
    metrics, per_user = (_on_spark if params.runtime.engine == "spark" else _here)(given, params)
    table, numbers = paths.EVALUATION / f"{name}.parquet", paths.METRICS / f"{name}.json"
    with staged(table) as table_out, staged(numbers) as numbers_out:
        write_table(per_user, table_out, PER_USER)
        write_json({**metrics, "model": model, "arm": arm}, numbers_out)
    return Outcome((table, numbers), rows=len(per_user), metrics=metrics["overall"])


def _here(given: dict[str, Any], _: Params) -> tuple[dict[str, Any], pd.DataFrame]:
    columns = {column: INTERACTIONS[column] for column in HISTORY}
    train, valid = (read_table(path, columns, encoded=True) for path in (paths.TRAIN, paths.VALID))
    return evaluate_index(**given, train=train, valid=valid)


def _on_spark(given: dict[str, Any], params: Params) -> tuple[dict[str, Any], pd.DataFrame]:
    from llm_i2i.spark import evaluate as on_spark  # noqa: PLC0415 - what extra `spark` installs
    from llm_i2i.spark.session import session  # noqa: PLC0415

    with session(params.spark) as spark:
        histories = (paths.TRAIN, paths.VALID)
        partition_mb = params.spark.partition_mb
        return on_spark.evaluate_index(spark, **given, histories=histories, partition_mb=partition_mb)
