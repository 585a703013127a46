"""One small Spark for all tests of this folder."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

# A JVM that starts fast matters more here than one that runs fast.
SUBMIT = (
    "--driver-memory 1g --conf spark.ui.enabled=false --conf spark.local.dir={folder} --conf spark.log.level=ERROR "
    "--conf spark.driver.extraJavaOptions='-XX:TieredStopAtLevel=1 -XX:+UseSerialGC' "
    "--conf spark.sql.shuffle.partitions=2 pyspark-shell"
)


@pytest.fixture(scope="session")
def spark_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where Spark keeps its shuffle files."""
    pytest.importorskip("pyspark", reason="pyspark is not installed (`make spark`)")
    if shutil.which("java") is None:
        pytest.skip("no Java on this machine (Debian: apt-get install openjdk-17-jre-headless)")
    return tmp_path_factory.mktemp("spark")


@pytest.fixture(scope="session")
def spark(spark_folder: Path) -> Iterator[object]:
    """A session of two cores in which a task may fail three times."""
    from llm_i2i.params import SparkParams
    from llm_i2i.spark.session import session

    before = os.environ.get("PYSPARK_SUBMIT_ARGS")
    os.environ["PYSPARK_SUBMIT_ARGS"] = SUBMIT.format(folder=spark_folder)
    with session(SparkParams(master="local[2,4]", partition_mb=1)) as found:
        if before is None:
            del os.environ["PYSPARK_SUBMIT_ARGS"]
        yield found
