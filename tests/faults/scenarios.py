"""What writes, in small: each function prepares a folder in the old state and returns the action that makes it new."""

import os
from pathlib import Path

import numpy as np
import pandas as pd

from llm_i2i import files
from llm_i2i.i2i.export import export_jsonl, export_redis, load_redis
from llm_i2i.i2i.index import index_sha256
from llm_i2i.schema import INDEX, INTERACTIONS, ITEMS, write_table
from tests.faults.run import Scenario


def index(seed: int) -> pd.DataFrame:
    """An index of twenty items with three neighbours each."""
    rng = np.random.default_rng(seed)
    rows = [
        (f"i{item:02d}", f"i{(item + step) % 20:02d}", np.float32(rng.random() + 3 - step), step)
        for item in range(20)
        for step in (1, 2, 3)
    ]
    return pd.DataFrame(rows, columns=["item_id", "neighbour_id", "score", "rank"])[list(INDEX)].astype(INDEX)


def catalogue() -> pd.DataFrame:
    """The items of `index`."""
    ids = [f"i{n:02d}" for n in range(20)]
    table = {"item_id": ids, "title": ids, "text": ids, "n_train": range(20), "bucket": "mid", "is_long_tail": False}
    return pd.DataFrame(table).astype(ITEMS)


def single_files(work: Path) -> Scenario:
    """JSON, text, CSV, Parquet, an array and a copy, each alone."""
    interactions = pd.DataFrame([("u", "i", 1, 0)], columns=list(INTERACTIONS)).astype(INTERACTIONS)

    def write(seed: int) -> None:
        rng = np.random.default_rng(seed)
        files.write_json({"seed": seed}, work / "deep" / f"new-{seed}" / "a.json")
        files.write_json({"a": rng.random(1000).tolist()}, work / "a.json")
        files.write_text("text\n" * seed, work / "a.txt")
        files.write_csv(work / "a.csv", ("a", "b"), rng.random((300, 2)).tolist())
        write_table(interactions.assign(timestamp=seed), work / "a.parquet", INTERACTIONS)
        files.write_array(rng.random(5000), work / "a.npy")
        files.copy_file(work / "a.json", work / "copy.json")

    write(1)
    names = ("a.json", "a.txt", "a.csv", "a.parquet", "a.npy", "copy.json")
    return Scenario(work, lambda: write(2), names)


def folder(work: Path) -> Scenario:
    """A folder with files of several libraries takes the place of another."""

    def write(seed: int) -> None:
        with files.staged(work / "out") as out:
            files.write_json({"seed": seed}, out / "a.json")
            write_table(index(seed), out / "sub" / "index.parquet", INDEX)
            files.write_array(np.full(3000, seed), out / "a.npy")

    write(1)
    return Scenario(work, lambda: write(2), ("out",))


def export_file(work: Path) -> Scenario:
    """JSON lines and their manifest; between two renames the manifest says that the lines are not its own."""
    path = work / "out.jsonl"
    export_jsonl(index(1), {"model": "swing"}, path)

    outputs = ("out.jsonl", "out.jsonl.manifest.json")
    return Scenario(work, lambda: export_jsonl(index(2), {"model": "swing"}, path), outputs)


def export_to_redis(work: Path) -> Scenario:
    """A connection that breaks at every send."""
    url = os.environ["FAULTS_REDIS"]

    def reset() -> None:
        export_redis(index(1), {"model": "swing"}, url, prefix="p")

    def state() -> str:
        found = index_sha256(load_redis(url, prefix="p")[0])
        return {index_sha256(index(1)): "old", index_sha256(index(2)): "new"}.get(found, found)

    act = lambda: export_redis(index(2), {"model": "swing"}, url, prefix="p")  # noqa: E731
    return Scenario(work, act, state=state, reset=reset, faults="socket:")


def verdict(work: Path) -> Scenario:
    """The gate's two files."""
    from llm_i2i.evaluation.gate import Check, Verdict
    from pipelines.release.gate import write

    facts = {"model": "swing-real", "commit": "0" * 40, "uncommitted": [], "champion": None}

    def answer(word: str) -> None:
        os.chdir(work)
        write(Verdict(word, (Check("seeds", passed=word == "better", reason="all"),)), facts)

    answer("refused")
    return Scenario(work, lambda: answer("better"), ("reports/gate.json", "reports/gate.md"))


def serving_store(work: Path) -> Scenario:
    """The service's store: what state.json names always loads, and is what a source said."""
    from llm_i2i.serving.build import Source, build
    from llm_i2i.serving.flat import FlatIndex
    from llm_i2i.serving.state import read_state

    none, catalogue_file = str(work / "none"), str(work / "items.parquet")
    source = Source(
        str(work / "index"), "p", artifacts=none, half_life=30.0, catalogue=catalogue_file, vectors=f"{none}.npy"
    )
    write_table(catalogue(), work / "items.parquet", ITEMS)

    def write(seed: int) -> None:
        with files.staged(work / "index") as out:
            write_table(index(seed), out / "index.parquet", INDEX)
            files.write_json({"content_sha256": index_sha256(index(seed)), "model": "swing"}, out / "manifest.json")

    write(1)
    build(source, work / "store")
    first = read_state(work / "store")["version"]
    write(2)

    def state() -> str:
        version = read_state(work / "store")["version"]
        FlatIndex(work / "store" / "versions" / version)
        return "old" if version == first else "new"

    return Scenario(work, lambda: build(source, work / "store"), state=state, faults=f"{work}/store/")


def checkpoints(work: Path) -> Scenario:
    """The state of a training and a shard of a search: one that was cut is made again, never half read."""
    import torch

    from llm_i2i.llm.engine.checkpoints import Checkpoint, TrainingLog
    from llm_i2i.llm.engine.shards import Shards

    weight = torch.nn.Parameter(torch.arange(500.0))
    optimizer = torch.optim.AdamW([weight])
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)

    def write(step: int) -> None:
        with torch.no_grad():
            weight.fill_(step)
        torch.manual_seed(step)
        Checkpoint(work / "state.pt", "work", {"weight": weight}, optimizer, schedule).save(step, TrainingLog())
        Shards(work / "shards", "work").save(0, {"items": np.full(200, step)})

    write(1)
    return Scenario(work, lambda: write(2), ("state.pt", "shards/000000.npz"))


def adapter(work: Path) -> Scenario:
    """What `transformers` and its tokenizer write themselves, in a stage's folder."""
    from llm_i2i.llm.engine.base_model import prepare_base_model
    from llm_i2i.params import load_params

    params = load_params(Path(__file__).parents[2] / "params.yaml")
    source = params.base_model.model_copy(update={"source": "random"})

    def write(seed: int) -> None:
        with files.staged(work / "out") as out:
            prepare_base_model(source, seed=seed, out=out, downloads=work)

    write(1)
    return Scenario(work, lambda: write(2), ("out",))


def broken(work: Path) -> Scenario:
    """What the harness must find: a file that is written in place, and one that is renamed without a flush."""

    def write(seed: int) -> None:
        (work / "in_place.txt").write_text(str(seed) * 10_000)
        (work / "unflushed.partial").write_text(str(seed) * 10_000)
        (work / "unflushed.partial").replace(work / "unflushed.txt")
        (work / "last.txt").write_text(str(seed))

    write(1)
    return Scenario(work, lambda: write(2), ("in_place.txt", "unflushed.txt"))
