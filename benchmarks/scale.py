"""Seconds and memory of the table stages by size, beside those of another revision in the same run.

    python benchmarks/scale.py [--sizes 300000 1000000] [--stages split fuse] [--against REVISION] [--out FILE]

N interactions of N / 10 users and N / 100 items: Zipf popularity, 3 to some hundred items per user, a tenth of the
rows at the time of another one of their user; 40 proposed pairs per user for `fuse`. Every stage runs in a process of
its own, both revisions in turn; every file that they write must be the same byte for byte. CPU seconds are those of
the stage alone, memory is the peak of its process. Work that others do on the machine changes seconds much more than
CPU seconds.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from llm_i2i.files import content_md5, write_json
from llm_i2i.schema import INTERACTIONS, ITEMS, JUDGED, read_table, write_table

ROOT = Path(__file__).parents[1]
SEED = 42
PROPOSED = 40  # pairs per user
STAGES = {
    "validate": {},
    "split": {},
    "tag": {},
    "fuse real": {"arm": "real"},
    "fuse llm_i2i": {"arm": "llm_i2i"},
    "fuse recipe": {"arm": "llm_i2i"},
    "train_i2i": {"model": "swing", "arm": "real"},
    "evaluate": {"model": "swing", "arm": "real"},
}
# VmHWM and not ru_maxrss: that one begins with the memory of the process that started this one.
STAGE = """
import json, re, sys, time
from importlib import import_module
stage, matrix = sys.argv[1], json.loads(sys.argv[2])
run = getattr(import_module(f"steps.{stage}"), stage)
memory = lambda: int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024
imports, wall, cpu = memory(), time.perf_counter(), time.process_time()
run(**matrix)
found = {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu, "peak_mb": memory()}
print(json.dumps({name: round(value, 2) for name, value in {**found, "imports_mb": imports}.items()}))
"""


def make_raw(folder: Path, n: int) -> None:
    """Write interactions.parquet and items.parquet, rows in time order."""
    generator = np.random.default_rng(SEED)
    n_users, n_items = max(10, n // 10), max(100, n // 100)
    lengths = np.minimum(3 + generator.geometric(1 / 7, n_users) * generator.choice([1, 1, 1, 1, 3], n_users), n_items)
    lengths = np.maximum(3, np.round(lengths * n / lengths.sum())).astype(np.int64)
    user = np.repeat(np.arange(n_users), lengths)
    item = generator.choice(n_items, len(user), p=_zipf(n_items))
    time = 1_600_000_000 + generator.integers(0, 10**8, len(user))
    same = np.flatnonzero((generator.random(len(user)) < 0.05) & (np.diff(user, prepend=-1) == 0))
    time[same] = time[same - 1]
    order = np.argsort(time, kind="stable")
    # Numbers without meaning: the order of identifiers tells nothing of popularity.
    users, items = ("A" + _digits(generator, n_users, 13)).array, "B" + _digits(generator, n_items, 9)
    table = {"user_id": users.take(user[order]), "item_id": items.array.take(item[order]), "timestamp": time[order]}
    folder.mkdir(parents=True)
    pd.DataFrame(table).to_parquet(folder / "interactions.parquet", index=False)
    titles = "item of kind " + pd.Series(np.arange(n_items) % 5_000).astype("str") + " number " + items.str[5:]
    pd.DataFrame({"item_id": items, "title": titles}).to_parquet(folder / "items.parquet", index=False)


def make_pairs(project: Path) -> None:
    """Write what `fuse` chooses from: pairs of every training user with items outside its training rows."""
    generator = np.random.default_rng(SEED)
    train = read_table(project / "artifacts/split/train.parquet", INTERACTIONS)
    items = read_table(project / "artifacts/items/items.parquet", ITEMS)["item_id"]
    taken, users = pd.factorize(train["user_id"], sort=True)
    n_items, drawn = len(items), 2 * PROPOSED
    item = generator.choice(n_items, len(users) * drawn, p=generator.permutation(_zipf(n_items)))
    pairs = np.repeat(np.arange(len(users)), drawn) * n_items + item
    real = np.unique(taken * n_items + pd.Index(items).get_indexer(pd.Index(train["item_id"])))
    kept = ~np.isin(pairs, real)
    kept[np.setdiff1d(np.arange(len(pairs)), np.unique(pairs, return_index=True)[1])] = False
    pairs = pairs[kept]
    user = pairs // n_items
    rank = np.arange(len(pairs)) - np.searchsorted(user, user) + 1
    pairs, user, rank = pairs[rank <= PROPOSED], user[rank <= PROPOSED], rank[rank <= PROPOSED]
    table = pd.DataFrame({"user_id": users.take(user), "item_id": items.array.take(pairs % n_items)})
    p_yes = generator.beta(1.0, 2.0, len(pairs))
    logprob = -np.log(rank + 1.0) - generator.random(len(pairs))
    table = table.assign(source="synthetic", p_yes=p_yes, rank=rank, logprob=logprob)
    write_table(table.astype(JUDGED), project / "artifacts/judged/pairs.parquet", JUDGED)


def _zipf(n: int) -> np.ndarray[Any, Any]:
    weight = 1.0 / (np.arange(n) + 10.0) ** 0.9
    return weight / weight.sum()


def _digits(generator: np.random.Generator, n: int, width: int) -> pd.Series:
    """So many distinct numbers of equal width as text."""
    return pd.Series(generator.permutation(10 * n)[:n]).astype("str").str.zfill(width)


def run_stage(name: str, project: Path, code: Path) -> dict[str, float]:
    """Run a stage of a checkout in a project folder; its seconds and memory."""
    selection = "recipe" if name.endswith("recipe") else "paper"
    params = yaml.safe_load((code / "params.yaml").read_text(encoding="utf-8"))
    params["fuse"] |= {"selection": selection}
    (project / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    command = [sys.executable, "-c", STAGE, name.split(maxsplit=1)[0], json.dumps(STAGES[name])]
    path = os.pathsep.join((str(code / "src"), str(code)))
    env = {**os.environ, "PYTHONPATH": path, "LLM_I2I_ZENML": "off", "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=project, env=env, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(n: int, codes: dict[str, Path], work: Path, stages: list[str]) -> dict[str, dict[str, dict[str, float]]]:
    """Every stage under every revision at one size."""
    _apart(["make_raw", str(work / "data"), str(n)])
    for name, code in codes.items():
        project = work / name
        shutil.copytree(code / "profiles", project / "profiles")
        (project / "data").symlink_to(work / "data")
    rows: dict[str, dict[str, dict[str, float]]] = {}
    for stage in stages:
        if stage == "fuse real":
            for name in codes:
                _apart(["make_pairs", str(work / name)])
        rows[stage] = {name: run_stage(stage, work / name, code) for name, code in codes.items()}
        print(f"{n:>11,} {stage:<14}", *(f"{name}: {row}" for name, row in rows[stage].items()), flush=True)
        written = {content_md5(work / name / "artifacts") for name in codes}
        if len(written) > 1:
            sys.exit(f"{stage} writes other bytes: {work}")
    return rows


def _apart(arguments: list[str]) -> None:
    """Call one of the functions above in a process of its own, whose memory goes when it ends."""
    subprocess.run([sys.executable, __file__, "--call", *arguments], check=True)


def exponents(sizes: dict[str, Any]) -> dict[str, dict[str, dict[str, float]]]:
    """Slope of log(seconds) and log(memory above the imports) over log(size), by least squares."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for stage in next(iter(sizes.values())):
        found[stage] = {}
        for name in next(iter(sizes.values()))[stage]:
            rows = [row[stage][name] for row in sizes.values()]
            values = {
                "cpu_seconds": [row["cpu_seconds"] for row in rows],
                "memory": [row["peak_mb"] - row["imports_mb"] for row in rows],
            }
            x = np.log([float(size) for size in sizes])
            found[stage][name] = {
                key: round(float(np.polyfit(x, np.log(np.maximum(y, 0.01)), 1)[0]), 2) for key, y in values.items()
            }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[300_000, 1_000_000, 3_000_000])
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES), help="in this order")
    parser.add_argument("--against", help="revision of this repository to run beside the working tree")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--call", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.call:
        name, folder, *rest = options.call
        make_raw(Path(folder), int(rest[0])) if name == "make_raw" else make_pairs(Path(folder))
        return
    with tempfile.TemporaryDirectory() as temporary:
        codes = {"now": ROOT}
        if options.against:
            codes["before"] = Path(temporary) / "code"
            subprocess.run(
                ["git", "worktree", "add", "--detach", codes["before"], options.against], cwd=ROOT, check=True
            )
        try:
            sizes = {}
            for n in [2_000, *options.sizes]:  # the first compiles the kernels
                work = Path(temporary) / str(n)
                sizes[str(n)] = measure(n, codes, work, options.stages)
                shutil.rmtree(work)
        finally:
            if options.against:
                subprocess.run(["git", "worktree", "remove", "--force", codes["before"]], cwd=ROOT, check=True)
    del sizes["2000"]
    cpu = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name"))
    found = {
        "before": options.against or "",
        "cpu": f"{cpu.partition(': ')[2]}, {os.cpu_count()} cores, one thread per stage",
        "python": platform.python_version(),
        "proposed_per_user": PROPOSED,
        "sizes": sizes,
        "exponents": exponents(sizes) if len(sizes) > 1 else {},
    }
    if options.out:
        write_json(found, options.out)


if __name__ == "__main__":
    main()
