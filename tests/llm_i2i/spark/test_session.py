"""What stands in Spark's way is one clear error."""

import os
import subprocess
import sys

import pytest

from llm_i2i.errors import LlmI2iError
from llm_i2i.params import SparkParams

YARN = """
from llm_i2i.errors import LlmI2iError
from llm_i2i.params import SparkParams
from llm_i2i.spark.session import session
try:
    with session(SparkParams(master="yarn", partition_mb=1)):
        pass
except LlmI2iError as error:
    print(error)
"""


def test_without_pyspark(monkeypatch) -> None:
    for name in [name for name in sys.modules if name.startswith("llm_i2i.spark")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pyspark", None)
    with pytest.raises(
        LlmI2iError, match=r"engine: spark: package py(spark|4j) is not installed; .* 'llm-i2i\[spark\]'"
    ):
        import llm_i2i.spark.similar  # noqa: F401


def test_without_java(spark_folder, monkeypatch) -> None:
    from llm_i2i.spark.session import session

    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    params = SparkParams(master="local[1]", partition_mb=1)
    with pytest.raises(LlmI2iError, match="there is no Java on this machine"), session(params):
        pass


def test_a_master_that_is_not_there(spark_folder) -> None:
    clean = {name: value for name, value in os.environ.items() if not name.endswith(("CONF_DIR", "SUBMIT_ARGS"))}
    done = subprocess.run([sys.executable, "-c", YARN], env=clean, capture_output=True, text=True, check=True)
    (told,) = done.stdout.splitlines()
    assert told.startswith("spark.master: yarn: no session (")
    assert "HADOOP_CONF_DIR" in done.stderr  # Spark's own words
    assert told.endswith("correct `spark.master` in params.yaml, or set `runtime.engine: local`.")
