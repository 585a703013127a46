"""A Spark session, and what Spark refuses as one error of ours."""

import os
import re
import shutil
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from llm_i2i.errors import LlmI2iError, needs_extra
from llm_i2i.params import SparkParams

WHERE: Final = "runtime.engine: spark"
with needs_extra("spark", WHERE):
    from py4j.protocol import Py4JError
    from pyspark import SparkConf, SparkContext
    from pyspark.errors import PySparkException
    from pyspark.sql import SparkSession


@contextmanager
def session(params: SparkParams) -> Iterator[SparkSession]:
    """A session on `params.master`; the context that a caller has already started is used, and left running.

    Everything else is Spark's own configuration: spark-defaults.conf, SPARK_CONF_DIR, PYSPARK_SUBMIT_ARGS.

    Args:
        params: Section spark.

    Raises:
        LlmI2iError: There is no Java, the master cannot be reached, or a task failed.
    """
    given = SparkContext._active_spark_context  # noqa: SLF001 - there is no public way to ask
    spark = _started(params.master)
    try:
        yield spark
    except (PySparkException, Py4JError) as error:
        fix = "mend that and run again; Spark's own log tells more, and docs/cluster.md how memory is set"
        raise LlmI2iError(WHERE, f"failed ({_said(error)})", "every task to end", fix) from error
    finally:
        if given is None:
            with suppress(Py4JError, OSError):  # where Java has died
                spark.stop()


def _started(master: str) -> SparkSession:
    if not (shutil.which("java") or os.access(Path(os.environ.get("JAVA_HOME", "")) / "bin/java", os.X_OK)):
        fix = "install one, such as Debian's openjdk-17-jre-headless, or set JAVA_HOME"
        raise LlmI2iError(WHERE, "there is no Java on this machine", "Java 17 or newer", fix)
    # Tables go to and fro as Arrow, never as pandas.
    warnings.filterwarnings("ignore", message="PySpark does not yet fully support pandas", category=FutureWarning)
    conf = SparkConf().setAppName("llm-i2i").setMaster(master).set("spark.ui.showConsoleProgress", "false")
    conf.set("spark.driver.maxResultSize", "0")  # an index comes back whole: the driver writes it
    if master.startswith("local"):
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
        conf.set("spark.driver.host", "127.0.0.1").set("spark.driver.bindAddress", "127.0.0.1")
    try:
        spark = SparkSession.builder.config(conf=conf).getOrCreate()
        spark.sparkContext.parallelize([0], 1).count()  # a master that refuses says so here
    except (PySparkException, Py4JError, OSError) as error:
        expected = "a Spark master that this machine reaches and that gives it an executor"
        fix = "correct `spark.master` in params.yaml, or set `runtime.engine: local`"
        raise LlmI2iError(f"spark.master: {master}", f"no session ({_said(error)})", expected, fix) from error
    return spark


def _said(error: Exception) -> str:
    """The first line of the innermost exception that Spark reports."""
    text = str(error)
    causes = re.findall(r"^(?:Caused by: )?([\w.]*(?:Error|Exception)\b.*)$", text, flags=re.MULTILINE)
    line = (causes[-1] if causes else text.strip().partition("\n")[0])[:300]
    return line or type(error).__name__
