"""How long profile `compact` takes by the number of users: every stage in a process of its own, on slices of data.

    python -m benchmarks.slices --tables FOLDER [--sizes 1000 10000 100000] [--work FOLDER] [--seconds 280]

FOLDER holds the raw tables of Toys. A slice is a seeded sample of its users with the items that they took. More users
than it has are made up (`benchmarks/scale.py`: ten interactions a user, as many items as a tenth of the users); of them
only the stages that read no LLM run, and the minutes of the others are computed: those of the largest slice that was
run whole, times its users, except for `encode_text`, where it is items.

Of each stage the CPU seconds of its process are kept, start included, on one thread: other work on the machine changes
them much less than the time of day. With `--work` and `--seconds` it stops between two stages when the time is over and
goes on there in the next call (exit status 3 until all is done).
"""

import argparse
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.scale import make_raw
from llm_i2i.data.sources import read_raw
from llm_i2i.files import write_json
from llm_i2i.params import load_params
from llm_i2i.stages import STAGES, instance_name
from tests.e2e.project import Project

RESULTS = Path(__file__).parent / "results/slices.json"
SEED = 42
TABLES = ("validate", "split", "tag", "fuse@real", "train_i2i@swing-real", "evaluate@swing-real")  # without an LLM
BY_ITEMS = ("encode_text", "identify")
MATRICES = {
    "name": "controls.names", "source": "score.sources", "arm": "fuse.arms", "model": "train_i2i.models",
}  # fmt: skip


def make_slice(tables: Path, users: int, folder: Path) -> dict[str, Any]:
    """Write the raw tables of so many users; how much that is."""
    raw = read_raw(tables)
    interactions, items = raw.interactions, raw.items
    names = np.sort(interactions["user_id"].unique())
    if users > len(names):
        make_raw(folder, 10 * users)
        interactions, items = (pd.read_parquet(folder / f"{name}.parquet") for name in ("interactions", "items"))
    else:
        chosen = np.random.default_rng(SEED).choice(names, users, replace=False)
        interactions = interactions[interactions["user_id"].isin(chosen)]
        items = items[items["item_id"].isin(interactions["item_id"])]
        folder.mkdir(parents=True)
        interactions.to_csv(folder / "interactions.csv", index=False)
        items.to_csv(folder / "items.csv", index=False)
    counts = {"users": interactions["user_id"].nunique(), "items": len(items), "interactions": len(interactions)}
    return {"made_up": users > len(names), **counts}


def make_project(root: Path, tables: Path, users: int) -> dict[str, Any]:
    """A copy of this project with profile `compact`, one thread, fp32, the model Swing, and the slice as its data."""
    root.mkdir(parents=True)
    project = Project.copy(root)
    project.pipeline("profile", "compact")
    project.set_param("runtime.threads", 1)
    project.set_param("runtime.precision", "fp32")
    project.set_param("train_i2i.models", ["swing"])
    return make_slice(tables, users, root / "data")


def instances(root: Path) -> list[tuple[str, list[str]]]:
    """Every stage's name and command line, in the order in which they run."""
    params = load_params(root / "params.yaml").model_dump()
    values = {key: params[where.split(".")[0]][where.split(".")[1]] for key, where in MATRICES.items()}
    values_of = {"evaluate_generator": {"arm": params["evaluate_generator"]["arms"]}}
    found = []
    for stage, keys in STAGES.items():
        for chosen in itertools.product(*({**values, **values_of.get(stage, {})}[key] for key in keys)):
            matrix = dict(zip(keys, chosen, strict=True))
            words = [word for key, value in matrix.items() for word in (f"--{key}", value)]
            found.append((instance_name(stage, matrix), [stage, *words]))
    return found


def cpu_seconds(project: Project, words: list[str]) -> float:
    """Run a stage on one thread; CPU seconds of its process and of those that it started."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
    command = [sys.executable, "-m", "pipelines", *words]
    process = subprocess.Popen(command, cwd=project.root, env={**project.environment, **threads})
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{words}: it failed")
    return round(usage.ru_utime + usage.ru_stime, 1)


def compute(sizes: dict[str, Any]) -> None:
    """Add minutes to what was measured, and to a size that lacks stages theirs, from the largest whole one."""
    whole = [size for size in sizes.values() if "report" in size["cpu_seconds"]]
    largest = max(whole, key=lambda size: size["users"]) if whole else None
    for size in sizes.values():
        measured = size["cpu_seconds"]
        size["computed"] = {}
        if size not in whole and largest:
            for name, seconds in largest["cpu_seconds"].items():
                by = "items" if name in BY_ITEMS else "users"
                if name not in measured:
                    size["computed"][name] = round(seconds * size[by] / largest[by], 1)
        size["minutes"] = round((sum(measured.values()) + sum(size["computed"].values())) / 60, 1)
        size["minutes_measured"] = round(sum(measured.values()) / 60, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", type=Path, required=True)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--work", type=Path, help="keeps the projects for the next call")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="no stage begins after so many")
    options = parser.parse_args()
    end = time.monotonic() + options.seconds
    found: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    with tempfile.TemporaryDirectory() as temporary:
        for users in options.sizes:
            root = (options.work or Path(temporary)).resolve() / str(users)
            row = found.get(str(users))
            if row is None or not root.exists():
                shutil.rmtree(root, ignore_errors=True)
                row = found[str(users)] = {**make_project(root, options.tables, users), "cpu_seconds": {}}
            for name, words in instances(root):
                if name in row["cpu_seconds"] or (row["made_up"] and name not in TABLES):
                    continue
                if time.monotonic() > end:
                    sys.exit(3)
                row["cpu_seconds"][name] = cpu_seconds(Project(root), words)
                print(users, name, row["cpu_seconds"][name], flush=True)
                compute(found)
                write_json(found, RESULTS)


if __name__ == "__main__":
    main()
