"""Bit for bit what the local engine computes, whatever dies on the way; in one file, so that one JVM starts."""

import logging
import os
import shutil
import signal
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import yaml

from benchmarks.scale import make_pairs, make_raw
from llm_i2i.errors import ArtifactError, DataError, LlmI2iError
from llm_i2i.files import content_md5
from llm_i2i.i2i.train import train_similar
from llm_i2i.i2i.user_items import user_items_from_frame
from llm_i2i.params import SparkParams, load_params
from llm_i2i.schema import JUDGED
from steps.evaluate import evaluate
from steps.fuse import fuse
from steps.split import split
from steps.tag import tag
from steps.train_i2i import train_i2i
from steps.validate import validate
from tests.conftest import ROOT, whole_params

pytestmark = pytest.mark.slow

SWING_TUNED = {"smoothing": 3.0, "user_shift": 2.0, "self_pair_weight": 1.0, "popularity_exponent": 0.3}
SMALL = {"zipf": 120_000, "random 1": 8_000, "random 2": 8_000}  # bytes of a task: some ranges of items
CASES = [
    ("swing", {}),
    ("swing", SWING_TUNED),
    ("item_knn", {"shrink": 2.0}),
    ("bm25", {"k1": 1.2, "b": 0.2}),
    ("popularity", {}),
]


def zipf(folder: Path) -> pd.DataFrame:
    make_raw(folder, 3_000)
    return pd.read_parquet(folder / "interactions.parquet")[["user_id", "item_id"]].drop_duplicates()


def random(seed: int) -> pd.DataFrame:
    """Identifiers whose order as text is not that of their numbers, one user of everything, one item of everybody."""
    generator = np.random.default_rng(seed)
    pairs = np.unique(generator.integers(0, [25, 40], (int(generator.integers(30, 300)), 2)), axis=0)
    pairs = np.unique(np.vstack([pairs, [(3, n) for n in range(40)], [(n, 7) for n in range(25)]]), axis=0)
    generator.shuffle(pairs)
    return pd.DataFrame({"user_id": [f"é{n}" for n in pairs[:, 0]], "item_id": [f"i{n}" for n in pairs[:, 1]]})


@pytest.fixture(scope="module")
def tables(spark, tmp_path_factory) -> dict[str, tuple]:
    """Lists and counts on Spark, matrix and items here, of each table."""
    from llm_i2i.spark import similar

    raw = {"zipf": zipf(tmp_path_factory.mktemp("raw") / "data"), "random 1": random(1), "random 2": random(2)}
    found = {}
    for name, rows in raw.items():
        items = pd.DataFrame({"item_id": sorted([*rows["item_id"].unique(), "nobody's"])})
        frame = spark.createDataFrame(pa.Table.from_pandas(rows, preserve_index=False))
        lists = similar.user_lists(frame, items, partition_bytes=1 << 20).persist()
        found[name] = (lists, similar.count(lists, len(items)), user_items_from_frame(rows, items))
    return found


def assert_same(spark_rows, local) -> None:
    for name in ("indptr", "indices", "data"):
        one, other = getattr(spark_rows, name), getattr(local, name)
        assert one.dtype == other.dtype
        assert one.tobytes() == other.tobytes()


@pytest.mark.parametrize(("model", "options"), CASES, ids=lambda value: value if isinstance(value, str) else "")
@pytest.mark.parametrize("table", ["zipf", "random 1", "random 2"])
def test_equals_the_local_engine(tables, table: str, model: str, options: dict[str, float]) -> None:
    from llm_i2i.spark import similar

    lists, counts, matrix = tables[table]
    top_k = 5 if table == "zipf" else 1_000
    size = SMALL[table]
    found = similar.similarities(lists, counts, model=model, options=options, top_k=top_k, partition_bytes=size)
    assert_same(found, train_similar(model, matrix, options=options, top_k=top_k, seed=0))
    assert similar.parts_of(counts, least=1, partition_bytes=size)[1] > 2


def test_a_killed_worker_and_lost_shuffle_files_change_nothing(tables, spark_folder, tmp_path, monkeypatch) -> None:
    from llm_i2i.spark import similar

    lists, counts, matrix = tables["zipf"]
    real, folder, marks = similar.rows_of_range, str(spark_folder), str(tmp_path)

    def disturbed(batches, shared, minimum, top_k):
        """Once a worker is killed within its task; once all that was shuffled is deleted before it is read."""
        for name in ("killed", "deleted"):
            try:
                os.close(os.open(f"{marks}/{name}", os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                continue
            if name == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            for path in Path(folder).rglob("shuffle_*"):
                path.unlink()
            os.kill(os.getpid(), signal.SIGKILL)  # the next attempt has to read them
        yield from real(batches, shared=shared, minimum=minimum, top_k=top_k)

    monkeypatch.setattr(similar, "rows_of_range", disturbed)
    found = similar.similarities(lists, counts, model="swing", options={}, top_k=5, partition_bytes=SMALL["zipf"])
    assert {path.name for path in tmp_path.iterdir()} == {"killed", "deleted"}
    assert_same(found, train_similar("swing", matrix, options={}, top_k=5, seed=0))


def test_ranges_fit_the_memory_and_a_row_that_cannot_is_told(spark_folder, caplog) -> None:
    from llm_i2i.spark import similar

    entries = np.array([5, 5, 5, 1_000, 5, 0, 5])
    counts = similar.Counts(n_users=900, n_entries=2_000, longest=500, users=entries, entries=entries)
    whole, n_parts = similar.parts_of(counts, least=2, partition_bytes=2_000 * similar.BYTES_PER_ENTRY)
    assert (n_parts, whole.tolist()) == (2, [0, 0, 0, 0, 1, 1, 1])
    assert "exceed" not in caplog.text
    part, n_parts = similar.parts_of(counts, least=2, partition_bytes=100 * similar.BYTES_PER_ENTRY)
    assert n_parts == len(entries)
    assert (np.diff(part) >= 0).all()
    assert part[4] > part[3]
    assert "the lists of the users of 1 item(s) exceed spark.partition_mb" in caplog.text


def test_malformed_rows_are_told_as_locally(spark) -> None:
    from llm_i2i.spark import similar

    items = pd.DataFrame({"item_id": ["a", "b"]})
    rows = pd.DataFrame({"user_id": ["u", "u", "v"], "item_id": ["a", "b", "a"], "weight": np.float32([1, 1, 1])})
    wrong = {
        "unknown item": rows.assign(item_id=["a", "c", "a"]),
        "weight": rows.assign(weight=np.float32([1, 1, 2])),
        "no user": rows.assign(user_id=["u", None, "v"]),
        "no row": rows.iloc[:0],
    }
    for name, table in wrong.items():
        with pytest.raises(ArtifactError) as local:
            user_items_from_frame(table.astype({"user_id": "str"}), items)
        schema = pa.schema({"user_id": pa.string(), "item_id": pa.string(), "weight": pa.float32()})
        frame = spark.createDataFrame(pa.Table.from_pandas(table, schema=schema, preserve_index=False))
        with pytest.raises(ArtifactError) as found:
            similar.user_lists(frame, items, partition_bytes=1 << 20)
        assert str(found.value) == str(local.value), name


def test_a_score_beyond_float32_is_told(tables) -> None:
    from llm_i2i.spark import similar

    lists, counts, _ = tables["random 1"]
    options = {"user_exponent": -40.0}
    with pytest.raises(DataError, match="not finite"):
        similar.similarities(lists, counts, model="swing", options=options, top_k=3, partition_bytes=1 << 20)


def engine(name: str, selection: str = "recipe") -> None:
    params = whole_params()
    params["fuse"]["selection"] = selection
    params["runtime"]["engine"] = name
    params["spark"]["partition_mb"] = 1
    Path("params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")


@pytest.fixture(scope="module")
def proposed(tmp_path_factory) -> Path:
    """A project with pairs to choose from, some real ones among them, and what a control proposes."""
    folder = tmp_path_factory.mktemp("proposed")
    make_raw(folder / "data", 3_000)
    shutil.copytree(ROOT / "profiles", folder / "profiles")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        engine("local")
        split()
        tag()
    make_pairs(folder)
    path = folder / "artifacts/judged/pairs.parquet"
    pairs, train = (pd.read_parquet(name) for name in (path, folder / "artifacts/split/train.parquet"))
    real = train[["user_id", "item_id"]].assign(source="real", p_yes=np.float32(0.0), rank=0, logprob=np.nan)
    real.loc[::2, "p_yes"] = np.float32(0.9)
    pd.concat([pairs, real]).astype(JUDGED).to_parquet(path, index=False)
    for name in ("scored", "proposed"):
        (folder / "artifacts" / name).mkdir()
        control = pairs[pairs["rank"] % 3 == 0].assign(source="item_knn").drop(columns="logprob")
        control.to_parquet(folder / f"artifacts/{name}/item_knn.parquet", index=False)
    return folder


def planted(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with one fault of each kind that a check tells, some of them more often than samples show."""
    rows = rows.assign(rating=np.resize([1.0, 4.5, 5.0], len(rows)))
    rows.loc[5, "item_id"] = "ghost"
    rows.loc[[7, 1_000], "timestamp"] = -3
    rows.loc[20:40, "rating"] = 7.0
    exact, again = rows.iloc[100:109], rows.iloc[200:900].assign(timestamp=lambda table: table["timestamp"] + 9)
    return pd.concat([rows, exact, again], ignore_index=True).sample(frac=1.0, random_state=0)


def as_parts(rows: pd.DataFrame, path: Path, cuts: list[int]) -> None:
    """Parts in folders of days whose names must be quoted in an address."""
    for n, (begin, end) in enumerate(pairwise([0, *cuts, len(rows)])):
        part = path / f"day=2 {n}+é" / f"part-{n}.parquet"
        part.parent.mkdir(parents=True, exist_ok=True)
        rows.iloc[begin:end].to_parquet(part, index=False)


@pytest.mark.parametrize("kind", ["good", "planted", "parts", "positions", "integers"])
def test_validate_finds_the_same(spark, tmp_path, monkeypatch, caplog, kind: str) -> None:
    make_raw(tmp_path / "data", 3_000)
    path = tmp_path / "data/interactions.parquet"
    rows = pd.read_parquet(path)
    path.unlink()
    if kind == "positions":
        rows = rows.rename(columns={"timestamp": "position"})
    if kind == "integers":
        rows["user_id"] = rows["user_id"].astype("category").cat.codes.astype("int32")
    if kind in {"planted", "parts"}:
        rows = planted(rows)
    as_parts(rows, path, [50, 2_000, 2_001]) if kind == "parts" else rows.to_parquet(path, index=False)
    shutil.copytree(ROOT / "profiles", tmp_path / "profiles")
    monkeypatch.chdir(tmp_path)
    found = []
    for name in ("local", "spark"):
        engine(name)
        with pytest.raises(DataError) if kind in {"planted", "parts"} else nullcontext() as refused:
            validate()
        said = caplog.text[-4_000:]
        caplog.clear()
        written = Path("artifacts/validation/validation.json")
        found.append((str(refused.value) if refused else "", written.read_bytes() if written.exists() else b"", said))
    assert found[0][:2] == found[1][:2]
    assert "this machine reads all others" not in found[1][2]


@pytest.mark.parametrize(
    "wrong", ["missing user", "no number", "no table", "two types", "two depths", "mixed units", "an old table"]
)
def test_what_spark_would_read_otherwise_is_left_to_this_machine(spark, tmp_path, wrong: str) -> None:
    from llm_i2i.spark.validate import validate_tables

    data = tmp_path / "data"
    make_raw(data, 300)
    path = data / "interactions.parquet"
    rows = pd.read_parquet(path)
    path.unlink()
    if wrong == "missing user":
        rows.loc[3, "user_id"] = None
    elif wrong == "no number":
        rows["rating"] = np.where(rows.index == 3, np.inf, 1.0)
    elif wrong == "mixed units":
        rows.loc[3, "timestamp"] *= 1_000
    as_parts(rows, path, [100])
    first = next(path.rglob("part-0.parquet"))
    if wrong == "no table":
        first.write_bytes(b"PAR1 no more")
    elif wrong == "two types":
        rows.iloc[:100].assign(timestamp=lambda table: table["timestamp"].astype("float64")).to_parquet(first)
    elif wrong == "two depths":
        first.rename(path / first.name)
    elif wrong == "an old table":
        (path / "_delta_log").mkdir()
        (path / "_delta_log/0.json").write_text("{}", encoding="utf-8")
    params = load_params(ROOT / "params.yaml")
    limits = {"params": params.validate_, "tail_max_count": 5, "docs_dir": tmp_path, "partition_mb": 1}
    assert validate_tables(spark, data, **limits) is None


@pytest.mark.parametrize(
    ("arm", "selection", "on_spark"),
    [
        ("real", "recipe", True),
        ("no_generator", "recipe", True),
        ("llm_i2i", "paper", True),
        ("synthetic_only", "most_credible", True),
        ("no_discriminator", "paper", True),
        ("item_knn", "paper", True),
        ("item_knn_filtered", "most_credible", True),
        ("llm_i2i", "recipe", False),
    ],
)
def test_fuse_writes_the_same_bytes(spark, proposed, monkeypatch, caplog, arm, selection, on_spark) -> None:
    monkeypatch.chdir(proposed)
    caplog.set_level(logging.INFO)
    found = {}
    for name in ("local", "spark"):
        engine(name, selection)
        fuse(arm=arm)
        found[name] = [(proposed / f"artifacts/fused/{arm}.{kind}").read_bytes() for kind in ("parquet", "json")]
    assert found["local"] == found["spark"]
    assert ("ranges of users" in caplog.text) == on_spark


def test_what_fuse_refuses_is_told_as_locally(spark, proposed, monkeypatch) -> None:
    monkeypatch.chdir(proposed)
    path = proposed / "artifacts/judged/pairs.parquet"
    whole = pd.read_parquet(path)
    said = []
    for name in ("local", "spark"):
        engine(name, "paper")
        whole.assign(p_yes=whole["p_yes"].where(whole.index != 100, np.float32(1.5))).to_parquet(path)
        with pytest.raises(ArtifactError) as found:
            fuse(arm="llm_i2i")
        said.append(str(found.value))
    whole.to_parquet(path)
    assert said[0] == said[1]


def test_a_failing_task_is_told(spark) -> None:
    from llm_i2i.spark.session import session

    def fail(batches):
        raise ValueError("no luck")

    with (
        pytest.raises(LlmI2iError, match=r"runtime.engine: spark: failed \(.*no luck"),
        session(SparkParams(master="local[2]", partition_mb=1)) as same,
    ):
        same.range(1).mapInArrow(fail, "id long").count()
    assert spark.range(3).count() == 3  # the session of the caller is left running


def test_stages_write_the_same_bytes(spark, tmp_path, monkeypatch, caplog) -> None:
    make_raw(tmp_path / "data", 3_000)
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    shutil.copytree(ROOT / "profiles", tmp_path / "profiles")
    monkeypatch.chdir(tmp_path)
    caplog.set_level(logging.INFO)
    found = {}
    for name in ("local", "spark"):
        engine(name)
        caplog.clear()
        validate()
        split()
        tag()
        fuse(arm="real")
        for model in ("swing", "bm25_tuned", "bpr"):
            train_i2i(model=model, arm="real")
            evaluate(model=model, arm="real")
        found[name] = content_md5(tmp_path / "artifacts"), content_md5(tmp_path / "reports/metrics")
        shutil.rmtree(tmp_path / "artifacts")
    assert found["local"] == found["spark"]
    assert "swing on Spark" in caplog.text
    assert "bpr trains on this machine alone" in caplog.text
