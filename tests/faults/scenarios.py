"""What writes, in small: each function prepares a folder in the old state and returns the action that makes it new."""

import importlib
import os
import shutil
import sys
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from llm_i2i import files
from llm_i2i.i2i.export import export_jsonl, export_redis, load_redis
from llm_i2i.i2i.index import index_sha256
from llm_i2i.schema import INDEX, INTERACTIONS, ITEMS, write_table
from tests.faults.run import RefusedError, Scenario, command, digest


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

    def state() -> dict[str, str]:
        return {"index": index_sha256(load_redis(url, prefix="p")[0])}

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
    write(2)

    def state() -> dict[str, str]:
        version = read_state(work / "store")["version"]
        FlatIndex(work / "store" / "versions" / version)
        return {"version": version}

    act = lambda: build(source, work / "store")  # noqa: E731
    return Scenario(work, act, state=state, faults=f"{work}/store/", known_as="store/versions")


def events(work: Path) -> Scenario:
    """The service's events: an acknowledged batch is there, and no other is half there.

    The next run starts the service again, and the client sends the batch that was not acknowledged.
    """
    from llm_i2i.serving.events import EventLog, read_events, repair

    def append(*items: str) -> None:
        log = EventLog(work, max_bytes=300)
        for item in items:
            log.append([{"type": "click", "item_id": item, "timestamp": 1}] * 2)

    def state() -> dict[str, str]:
        found = Counter(event["item_id"] for event in read_events(work))
        # Sent again where it was there already: whole, all the same.
        return {item: "not there" if not found[item] else "half" if found[item] % 2 else "there" for item in "abcde"}

    def act() -> None:
        repair(work)
        append("c", "d", "e")

    append("a", "b")
    return Scenario(work, act, state=state)


def stage(work: Path, instance: str) -> Scenario:
    """A stage's command in a finished project of the ci profile (FAULTS_PROJECT), over outputs of an older run."""
    import yaml

    from llm_i2i.stages import STAGES
    from pipelines.__main__ import main

    project = Path(os.environ["FAULTS_PROJECT"])
    for name in ("artifacts", "data", "reports", "profiles"):
        shutil.copytree(project / name, work / name)
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(project / name, work)
    outs = yaml.safe_load((project / "dvc.lock").read_text(encoding="utf-8"))["stages"][instance]["outs"]
    outputs = tuple(out["path"] for out in outs)
    for path in (work / name for name in outputs):
        for file in [path] if path.is_file() else path.iterdir():
            file.chmod(0o644)
            file.write_bytes(file.read_bytes() + b"older")
    name, _, values = instance.partition("@")
    keys = STAGES[name]
    matrix = zip(keys, values.split("-", maxsplit=len(keys) - 1), strict=True) if keys else ()
    importlib.import_module(f"steps.{name}")  # once, not in every process
    arguments = [name, *(word for key, value in matrix for word in (f"--{key}", value))]
    volatile = ("reports/runtime/", "reports/validation/")
    return Scenario(work, lambda: command(main, *arguments), outputs, volatile=volatile)


def gate(work: Path) -> Scenario:
    """The whole command: it compares, then writes its verdict."""
    from pipelines.__main__ import main

    apart(lambda: _release(work))
    return Scenario(work, lambda: command(main, "gate"), ("reports/gate.json", "reports/gate.md"), volatile=GIT)


def promote(work: Path) -> Scenario:
    """Registers two models by git's tags: each tag is there or not, and a second call makes those that are missing."""
    from llm_i2i.git import git
    from pipelines.__main__ import main

    def prepare() -> None:
        _release(work)
        command(main, "gate")

    apart(prepare)

    def state() -> dict[str, str]:
        tags = (git("for-each-ref", "--format=%(refname) %(*objectname)", "refs/tags", root=work) or "").splitlines()
        cards = work / "reports" / "model_cards"
        names = ("i2i-index", "generator")
        found = {
            f"{name}{mark}": str(sorted(tag for tag in tags if f"/{name}{mark}" in tag))
            for name in names
            for mark in "@#"
        }
        return {**found, **{name: digest(cards / f"{name}.md") for name in names}}

    # GTO tells that it failed, not where.
    return Scenario(work, lambda: command(main, "promote"), state=state, names_paths=False, volatile=GIT)


def apart(prepare: Callable[[], object]) -> None:
    """Run in a process of its own, whose threads and locks no later fork inherits."""
    child = os.fork()
    if child == 0:
        try:
            prepare()
        except BaseException:  # noqa: BLE001 - whatever it is, it is told
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


GIT = (".git/index", ".git/objects", ".git/logs", ".git/COMMIT_EDITMSG")


def _release(work: Path) -> None:
    """The project of the promotion's tests, with its results and without a champion."""
    from tests.pipelines import test_promotion

    os.chdir(work)
    test_promotion.make_project()
    test_promotion.build(0.3, "first")


def sweep(work: Path) -> Scenario:
    """A declared experiment whose points DVC has run: they are collected, evaluated and told."""
    from pipelines.__main__ import main
    from tests.e2e.test_sweep import TRIAL

    project = Path(os.environ["FAULTS_PROJECT"])
    shutil.copytree(project, work, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".zenml-store"))
    files.write_json({**TRIAL, "grid": {"fuse.threshold": [0.2]}}, work / "experiments" / "trial.yaml")
    apart(lambda: (os.chdir(work), command(main, "sweep", "trial")))
    shutil.rmtree(work / "reports" / "experiments")
    folder = "reports/experiments/trial"
    shown = ("table.csv", "README.md", "results.json", "trial-overall.svg")
    return Scenario(work, lambda: command(main, "sweep", "trial"), tuple(f"{folder}/{name}" for name in shown))


def repro(work: Path) -> Scenario:
    """`python -m pipelines check` and `dvc repro` of a stage that is stale, as `make repro` runs them.

    DVC deletes a stage's outputs before it runs: none is an old state too. What it says of a fault is its own affair.
    """
    from llm_i2i.dvc import locked_md5
    from llm_i2i.files import content_md5
    from tests.e2e.project import Project

    shutil.copytree(
        os.environ["FAULTS_PROJECT"], work, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".zenml-store")
    )
    project, outs = Project(work), [Path("artifacts/fused/llm_i2i.parquet"), Path("artifacts/fused/llm_i2i.json")]
    project.set_param("fuse.max_synthetic_per_user", 1)
    old = {path.name: digest(work / path) for path in outs}

    def state() -> dict[str, str]:
        return {path.name: digest(work / path) if (work / path).exists() else old[path.name] for path in outs}

    def act() -> None:
        for module, *words in (("pipelines", "check"), ("dvc", "repro", "fuse@llm_i2i")):
            done = project.run(sys.executable, "-m", module, *words, ok=False)
            assert "Traceback" not in done.stderr, done.stderr
            if done.returncode:
                raise RefusedError(done.stderr[-500:])
        assert [locked_md5(path) for path in outs] == [content_md5(path) for path in outs]

    return Scenario(work, act, state=state, names_paths=False, volatile=("reports/runtime/", ".dvc/tmp/"))


def checkpoints(work: Path) -> Scenario:
    """The state of a training and a shard of a search: one that was cut is made again, never half read."""
    import torch

    from llm_i2i.llm.engine.checkpoints import Checkpoint, TrainingLog
    from llm_i2i.llm.engine.shards import _save

    weight = torch.nn.Parameter(torch.arange(500.0))
    optimizer = torch.optim.AdamW([weight])
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)

    def write(step: int) -> None:
        with torch.no_grad():
            weight.fill_(step)
        torch.manual_seed(step)
        Checkpoint(work / "state.pt", "work", {"weight": weight}, optimizer, schedule).save(step, TrainingLog())
        _save({"items": np.full(200, step)}, work / "shards/000.npz")

    write(1)
    return Scenario(work, lambda: write(2), ("state.pt", "shards/000.npz"))


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
