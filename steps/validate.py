"""Stage validate: check the raw tables."""

import logging
from typing import Any

from llm_i2i.data.expectations import raise_on_errors, validate_tables
from llm_i2i.data.sources import read_raw
from llm_i2i.files import staged, write_json
from llm_i2i.params import Params, load_params
from steps.paths import DATA, DATA_DOCS, VALIDATION
from steps.stage import Outcome, stage_step

logger = logging.getLogger(__name__)


@stage_step
def validate() -> Outcome:
    """Run every expectation on data/; stop on a broken one after its Data Docs page is written."""
    params = load_params()
    DATA_DOCS.mkdir(parents=True, exist_ok=True)
    result = _on_spark(params) or _here(params)
    raise_on_errors(result)
    with staged(VALIDATION) as out:
        write_json(result, out / "validation.json")
    return Outcome((VALIDATION,), rows=result["counts"]["interactions"])


def _here(params: Params) -> dict[str, Any]:
    raw = read_raw(DATA, encoded=True)
    return validate_tables(raw, params=params.validate_, tail_max_count=params.tag.tail_max_count, docs_dir=DATA_DOCS)


def _on_spark(params: Params) -> dict[str, Any] | None:
    """The checks by Spark, if it is the engine and reads the table."""
    if params.runtime.engine != "spark":
        return None
    from llm_i2i.spark import validate as on_spark  # noqa: PLC0415 - what extra `spark` installs
    from llm_i2i.spark.session import session  # noqa: PLC0415

    with session(params.spark) as spark:
        found = on_spark.validate_tables(
            spark,
            DATA,
            params=params.validate_,
            tail_max_count=params.tag.tail_max_count,
            docs_dir=DATA_DOCS,
            partition_mb=params.spark.partition_mb,
        )
    if found is None:
        logger.warning(
            "validate: Spark reads whole Parquet tables of integer times only; this machine reads all others"
        )
    return found
