"""Seconds and memory of the table stages by size, beside those of another revision in the same run.

    python benchmarks/scale.py [--sizes 300000 1000000] [--stages split tag] [--against REVISION] [--out FILE]
    python benchmarks/scale.py --sizes 100000000 --stages split --work FOLDER --out FILE    # one stage, then the next

N interactions of N / 10 users and N / 100 items: Zipf popularity, 3 to some hundred items per user, a tenth of the
rows at the time of another one of their user; 40 proposed pairs per user for the arms of `fuse` that read them; at most
100,000 test users for `evaluate`. Every stage runs in a process of its own, both revisions in turn; every file that
they write must be the same byte for byte. CPU seconds are those of the stage alone, memory is the peak of its process.
Work that others do on the machine changes seconds much more than CPU seconds. Sizes and stages that FILE has from
earlier runs stay.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml

from llm_i2i.files import content_md5, write_json
from llm_i2i.schema import INTERACTIONS, ITEMS, JUDGED, read_table, write_table

ROOT = Path(__file__).parents[1]
GROUP = 1_000_000  # rows written at a time
SEED = 42
PROPOSED = 40  # pairs per user
TEST_USERS = 100_000
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
    users, items = _digits(generator, "A", n_users, 13), _digits(generator, "B", n_items, 9)
    folder.mkdir(parents=True)
    schema = pa.schema({"user_id": pa.large_string(), "item_id": pa.large_string(), "timestamp": pa.int64()})
    with pq.ParquetWriter(folder / "interactions.parquet", schema) as writer:
        for rows in np.array_split(order, 1 + len(order) // GROUP):
            writer.write_table(pa.table([users.take(user[rows]), items.take(item[rows]), time[rows]], schema=schema))
    kinds = pd.Series(np.arange(n_items) % 5_000).astype("str")
    names = items.to_pandas()
    table = pd.DataFrame({"item_id": names, "title": "item of kind " + kinds + " number " + names.str[5:]})
    table.to_parquet(folder / "items.parquet", index=False)


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


def _digits(generator: np.random.Generator, letter: str, n: int, width: int) -> pa.LargeStringArray:
    """So many distinct texts of one letter and a number of equal width."""
    numbers = pa.array(generator.permutation(10 * n)[:n]).cast(pa.large_string())
    empty = pa.scalar("", pa.large_string())
    return pc.binary_join_element_wise(pa.scalar(letter, pa.large_string()), pc.utf8_lpad(numbers, width, "0"), empty)


def cut_test(project: Path) -> None:
    """Leave a sample of the test users in test.parquet."""
    path = project / "artifacts/split/test.parquet"
    test = read_table(path, INTERACTIONS, encoded=True)
    if len(test) > TEST_USERS:
        chosen = np.sort(np.random.default_rng(SEED).choice(len(test), TEST_USERS, replace=False))
        write_table(test.iloc[chosen], path, INTERACTIONS)


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


def measure(n: int, codes: dict[str, Path], work: Path, stage: str) -> dict[str, dict[str, float]]:
    """One stage under every revision at one size."""
    if not (work / "data").exists():
        _apart(["make_raw", str(work / "data"), str(n)])
    for name, code in codes.items():
        project = work / name
        if not project.exists():
            shutil.copytree(code / "profiles", project / "profiles")
            (project / "data").symlink_to(work / "data")
        reads_pairs = stage.startswith("fuse") and ("before" in codes or stage != "fuse real")
        if reads_pairs and not (project / "artifacts/judged").exists():
            _apart(["make_pairs", str(project)])
        if stage == "evaluate":
            _apart(["cut_test", str(project)])
    row = {name: run_stage(stage, work / name, code) for name, code in codes.items()}
    print(f"{n:>11,} {stage:<14}", *(f"{name}: {found}" for name, found in row.items()), flush=True)
    if len({content_md5(work / name / "artifacts") for name in codes}) > 1:
        sys.exit(f"{stage} writes other bytes: {work}")
    return row


def _apart(arguments: list[str]) -> None:
    """Call one of the functions above in a process of its own, whose memory goes when it ends."""
    subprocess.run([sys.executable, __file__, "--call", *arguments], check=True)


def exponents(sizes: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Slope of log(CPU seconds) and log(memory above the imports) over log(size) by stage, by least squares."""
    found: dict[str, dict[str, float]] = {}
    for stage in STAGES:
        of_size = {int(size): stages[stage]["now"] for size, stages in sizes.items() if stage in stages}
        if len(of_size) > 1:
            x = np.log(list(of_size))
            values = {
                "cpu_seconds": [row["cpu_seconds"] for row in of_size.values()],
                "memory": [row["peak_mb"] - row["imports_mb"] for row in of_size.values()],
            }
            slopes = {key: np.polyfit(x, np.log(np.maximum(y, 0.01)), 1)[0] for key, y in values.items()}
            found[stage] = {key: round(float(slope), 2) for key, slope in slopes.items()}
    return found


@contextmanager
def checkouts(against: str | None, folder: Path) -> Iterator[dict[str, Path]]:
    """The working tree and, while the block lasts, a checkout of another revision."""
    if not against:
        yield {"now": ROOT}
        return
    subprocess.run(["git", "worktree", "add", "--detach", folder, against], cwd=ROOT, check=True)
    try:
        yield {"now": ROOT, "before": folder}
    finally:
        subprocess.run(["git", "worktree", "remove", "--force", folder], cwd=ROOT, check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[300_000, 1_000_000, 3_000_000])
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES), help="in this order")
    parser.add_argument("--against", help="revision of this repository to run beside the working tree")
    parser.add_argument("--work", type=Path, help="keeps the data and what stages wrote, for the next stages")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--call", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.call:
        name, folder, *rest = options.call
        {"make_raw": make_raw, "make_pairs": make_pairs, "cut_test": cut_test}[name](Path(folder), *map(int, rest))
        return
    found = json.loads(options.out.read_text()) if options.out and options.out.exists() else {"sizes": {}}
    cpu = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name"))
    found |= {
        "before": options.against or found.get("before", ""),
        "cpu": f"{cpu.partition(': ')[2]}, {os.cpu_count()} cores, one thread per stage",
        "python": platform.python_version(),
        "proposed_per_user": PROPOSED,
        "test_users": TEST_USERS,
    }
    with tempfile.TemporaryDirectory() as temporary, checkouts(options.against, Path(temporary) / "code") as codes:
        for stage in options.stages if not options.work else ():
            measure(2_000, codes, Path(temporary) / "first", stage)  # compiles the kernels
        for n in options.sizes:
            work = (options.work or Path(temporary)) / str(n)
            for stage in options.stages:
                found["sizes"].setdefault(str(n), {"interactions": n})[stage] = measure(n, codes, work, stage)
                found["exponents"] = exponents(found["sizes"])
                if options.out:
                    write_json(found, options.out)
            if not options.work:
                shutil.rmtree(work)


if __name__ == "__main__":
    main()
