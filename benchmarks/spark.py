"""The local engine and Spark beside each other: equal bits, seconds of both, and an executor that is killed.

    python benchmarks/spark.py [--sizes 1000000] [--toys FOLDER] [--kill] --out benchmarks/results/spark.json

Tables as of benchmarks/scale.py (N / 10 users, N / 100 items, Zipf), or the raw tables of --toys. Both engines run in
one process, one after the other, on kernels that are compiled: `train_i2i` of each model that Spark has, then
`evaluate` of Swing on at most 100,000 test users. Spark runs on local[2], its session's start counted apart. --kill
computes Swing on two executors of one core each; the first task that computes rows kills the Java process of its own
executor, and all that was shuffled there is lost. Sizes that FILE has from earlier runs stay.
"""

import argparse
import json
import os
import platform
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import yaml

os.environ["LLM_I2I_ZENML"] = "off"
from benchmarks.scale import cut_test, make_raw
from llm_i2i.evaluation.evaluate import HISTORY, evaluate_index
from llm_i2i.evaluation.protocol import Protocol
from llm_i2i.files import write_json
from llm_i2i.i2i.index import index_sha256
from llm_i2i.i2i.train import train_index
from llm_i2i.params import Params, SparkParams, load_params
from llm_i2i.schema import FUSED, INTERACTIONS, ITEMS, read_table
from llm_i2i.spark import evaluate as spark_evaluate
from llm_i2i.spark import similar
from llm_i2i.spark.session import session
from steps import paths

ROOT = Path(__file__).parents[1]
MODELS = ("swing", "item_knn", "bm25")
PARTITION_MB = 512


@contextmanager
def project(make: Callable[[Path], object]) -> Iterator[None]:
    """A folder with the stages' outputs up to `fuse`, as the working directory."""
    from steps.fuse import fuse
    from steps.split import split
    from steps.tag import tag

    before = Path.cwd()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make(folder / "data")
        shutil.copytree(ROOT / "profiles", folder / "profiles")
        params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
        params["split"]["max_users"] = 0
        (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
        os.chdir(folder)
        try:
            split()
            tag()
            fuse(arm="real")
            cut_test(folder)
            yield
        finally:
            os.chdir(before)


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    started = time.perf_counter()
    return work(), round(time.perf_counter() - started, 2)


def both(spark: Any, params: Params, models: list[str]) -> dict[str, Any]:
    """Seconds of both engines on what lies in the working directory; stops where a bit differs."""
    fused, items = paths.FUSED / "real.parquet", read_table(paths.ITEMS, ITEMS)
    found: dict[str, Any] = {"interactions": len(read_table(fused, FUSED, encoded=True)), "items": len(items)}
    index = None
    for model in models:
        given = {"model": model, "items": items, "params": params.train_i2i}
        one, local = timed(
            lambda given=given: train_index(fused=read_table(fused, FUSED, encoded=True), seed=1, **given)
        )
        other, on_spark = timed(
            lambda given=given: similar.train_index(spark, fused=fused, partition_mb=PARTITION_MB, **given)
        )
        if index_sha256(one) != index_sha256(other):
            sys.exit(f"{model}: Spark gives another index")
        found[model] = row(local, on_spark)
        index = one if model == "swing" else index
        print(model, found[model], flush=True)
    columns = {column: INTERACTIONS[column] for column in HISTORY}
    test = read_table(paths.TEST, INTERACTIONS)
    given = {"index": index, "test": test, "items": items, "protocol": Protocol.from_params(params, model="swing")}
    (one, users), local = timed(
        lambda: evaluate_index(
            train=read_table(paths.TRAIN, columns, encoded=True),
            valid=read_table(paths.VALID, columns, encoded=True),
            **given,
        )
    )
    (other, same_users), on_spark = timed(
        lambda: spark_evaluate.evaluate_index(
            spark, histories=(paths.TRAIN, paths.VALID), partition_mb=PARTITION_MB, **given
        )
    )
    pd.testing.assert_frame_equal(users, same_users, check_exact=True)
    if one != other:
        sys.exit("evaluate: Spark gives other metrics")
    found |= {"test_users": len(test), "evaluate": row(local, on_spark)}
    print("evaluate", found["evaluate"], flush=True)
    return found


def row(local: float, on_spark: float) -> dict[str, float]:
    return {"local_s": local, "spark_s": on_spark, "ratio": round(on_spark / local, 2)}


def killed_executor(folder: Path) -> dict[str, Any]:
    """Swing on two executors, of which the first to compute a row kills itself with all that it has shuffled."""
    params, mark = load_params(), str(folder / "killed")
    real = similar.rows_of_range
    fused, items = paths.FUSED / "real.parquet", read_table(paths.ITEMS, ITEMS)
    given = {"model": "swing", "items": items, "params": params.train_i2i}

    def killing(batches: Any, **options: Any) -> Iterator[pa.RecordBatch]:
        try:
            os.close(os.open(mark, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            yield from real(batches, **options)
            return
        daemon = Path(f"/proc/{os.getppid()}/status").read_text(encoding="utf-8")
        (executor,) = [int(line.split()[1]) for line in daemon.splitlines() if line.startswith("PPid:")]
        os.kill(executor, signal.SIGKILL)
        time.sleep(600)

    with session(SparkParams(master="local-cluster[2,1,1024]", partition_mb=1)) as spark:
        similar.rows_of_range = killing
        try:
            found, seconds = timed(lambda: similar.train_index(spark, fused=fused, partition_mb=1, **given))
        finally:
            similar.rows_of_range = real
    here = train_index(fused=read_table(fused, FUSED, encoded=True), seed=1, **given)
    if not Path(mark).exists() or index_sha256(here) != index_sha256(found):
        sys.exit("a killed executor changes the index, or none was killed")
    return {
        "executors": 2,
        "killed": 1,
        "interactions": len(read_table(fused, FUSED, encoded=True)),
        "seconds": seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="*", default=[1_000_000])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS), help="swing is one of them")
    parser.add_argument("--toys", type=Path, help="folder with interactions.csv and items.csv")
    parser.add_argument("--kill", action="store_true", help="kill an executor, on 30,000 interactions")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    out = options.out.resolve()
    found = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {"tables": {}}
    cpu = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name"))
    found |= {
        "cpu": f"{cpu.partition(': ')[2]}, {len(os.sched_getaffinity(0))} of {os.cpu_count()} cores",
        "python": platform.python_version(),
        "partition_mb": PARTITION_MB,
    }
    makers: dict[str, Callable[[Path], object]] = {
        str(n): lambda folder, n=n: make_raw(folder, n) for n in options.sizes
    }
    if options.toys:
        toys = options.toys.resolve()
        makers["toys"] = lambda folder: shutil.copytree(toys, folder)
    if makers:
        with project(lambda folder: make_raw(folder, 2_000)):  # compiles the kernels, here and in Spark's workers
            manager = session(SparkParams(master="local[2]", partition_mb=PARTITION_MB))
            spark, found["session_s"] = timed(manager.__enter__)
            _, found["first_jobs_s"] = timed(lambda: both(spark, load_params(), options.models))
        found["spark"] = spark.version
        for name, make in makers.items():
            with project(make):
                found["tables"][name] = {
                    **both(spark, load_params(), options.models),
                    "load": round(os.getloadavg()[0], 1),
                }
            write_json(found, out)
        manager.__exit__(None, None, None)
    if options.kill:
        with project(lambda folder: make_raw(folder, 30_000)):
            found["killed_executor"] = killed_executor(Path.cwd())
        write_json(found, out)


if __name__ == "__main__":
    main()
