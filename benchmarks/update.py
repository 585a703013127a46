"""What a new day costs beside a full run, and why.

    python benchmarks/update.py [--sizes 1000000 10000000] [--stages 1000000] [--llm 100000] [--out FILE]

N interactions as benchmarks/scale.py makes them, then a day of new ones, a thousandth of them of new items:

- `random users`: 1 % more interactions, each of a user drawn from all;
- `one percent of users`: as many, of a hundredth of the users;
- `a quiet day`: 0.1 % more, of a thousandth of the users.

`--sizes`: Swing on all interactions, whole and patched from the index of the day before, reading and writing what is
kept included; both must be equal bit by bit. Beside them stands what share of Swing's work any way of updating would
leave. Swing adds a term for each pair of users of both items: these visits are most of its work. `rows`: visits in rows
that are touched, which are computed again here; `item_pairs`: visits for pairs of items that some changed user took
both, which a program could do alone that keeps all other sums; `user_pairs`: visits of pairs with a changed user, once
to take the old term away and once to add the new one. That is no way to equal bits: sums of floats depend on their
order. `--stages`: the table stages and Swing on arm real, as `python -m pipelines update` runs them and with nothing to
take over; `--llm`: synthesis and scoring by compact models, trained for seconds. Both must write the same bytes. CPU
seconds on one thread, of the computation alone. What FILE has from earlier runs stays.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import scale
import yaml
from numba import njit

from llm_i2i.arrays import Array
from llm_i2i.data.days import change_tables
from llm_i2i.files import content_md5, write_json
from llm_i2i.i2i import swing
from llm_i2i.i2i.patch import patched
from llm_i2i.i2i.user_items import UserItems, pointers, transposed, user_items_from_frame
from llm_i2i.schema import ITEM_ID, USER_ID, encode

ROOT = Path(__file__).parents[1]
DAYS = {"random users": (0.01, 1.0), "one percent of users": (0.01, 0.01), "a quiet day": (0.001, 0.001)}
EXPECTED = {"a hundredth": 0.01, "a thousandth": 0.001}  # of the users changed, for `expected_rows`
TOP_K = 100
TABLES = ("validate", "split", "tag", "fuse real", "train_i2i")
LLM = {"synthesize": {}, "score": {"source": "generator"}}
TRAININGS = ("encode_text", "identify", "base_model", "train_generator", "train_discriminator")
scale.STAGES.update(LLM | {stage: {} for stage in TRAININGS})


def make_day(data: Path, folder: Path, share: float, of_users: float) -> int:
    """Write a day's tables; returns its number of users."""
    rng = np.random.default_rng(scale.SEED)
    table = pq.read_table(data / "interactions.parquet").to_pandas()
    items = pd.read_parquet(data / "items.parquet")
    users = rng.permutation(table["user_id"].unique())
    users = users[: max(1, round(of_users * len(users)))]
    new = [f"Bnew{number}" for number in range(max(1, len(items) // 1000))]
    n, last = round(share * len(table)), int(table["timestamp"].max())
    item = table["item_id"].to_numpy()[rng.integers(0, len(table), n)]  # by popularity
    item[rng.integers(0, n, max(2, n // 1000))] = rng.choice(new)
    day = pd.DataFrame({"user_id": rng.choice(users, n), "item_id": item, "timestamp": last + np.arange(n)})
    folder.mkdir(parents=True)
    day.to_parquet(folder / "interactions.parquet", index=False)
    title = [f"new item number {number}" for number in range(len(new))]
    pd.DataFrame({"item_id": new, "title": title}).to_parquet(folder / "items.parquet", index=False)
    return int(day["user_id"].nunique())


def copy_of(source: Path, target: Path) -> Path:
    """A copy of a project by hard links: whatever is written anew gets a file of its own."""
    shutil.copytree(source, target, copy_function=os.link, symlinks=True)
    return target


def set_params(project: Path, params: dict[str, Any]) -> None:
    """Params of a project whose LLMs serve many updates, beside the code that it runs."""
    code = project / "code"
    code.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump({**params, "update": {"retrain_after": 99}})
    (code / "params.yaml").write_text(text, encoding="utf-8")
    shutil.copytree(ROOT / "profiles", project / "profiles", dirs_exist_ok=True)
    for room in ("src", "steps"):
        (code / room).symlink_to(ROOT / room)


def run(project: Path, stages: tuple[str, ...]) -> dict[str, float]:
    """CPU seconds of stages, each in a process of its own."""
    found = {}
    for stage in stages:
        found[stage] = scale.run_stage(stage, project, project / "code")["cpu_seconds"]
        print(f"  {project.name}: {stage} {found[stage]:.1f} s", flush=True)
    return found


@njit(cache=True)
def _visits(by_user: Any, by_item: Any, changed: Any, n_items: int) -> Any:
    """Visits of pairs of users: of each row, of touched pairs of items, and of pairs of users one of whom changed."""
    start, taken = by_user
    first, users = by_item
    count, of_changed = np.zeros(n_items, np.int64), np.zeros(n_items, np.int64)
    rows = np.zeros((n_items, 3), np.float64)
    for item in range(n_items):
        for q in range(first[item], first[item + 1]):
            u = users[q]
            for p in range(start[u], start[u + 1]):
                count[taken[p]] += 1
                of_changed[taken[p]] += changed[u]
        for q in range(first[item], first[item + 1]):
            for p in range(start[users[q]], start[users[q] + 1]):
                other = taken[p]
                n, rest = count[other], count[other] - of_changed[other]
                if other != item and n > 1:
                    rows[item, 0] += n * (n - 1) / 2
                    rows[item, 1] += n * (n - 1) / 2 if of_changed[other] else 0
                    rows[item, 2] += n * (n - 1) / 2 - rest * (rest - 1) / 2
                count[other] = of_changed[other] = 0
    return rows


def left_of_swing(matrix: UserItems, changed: Array) -> dict[str, float]:
    """Which shares of Swing's work a day leaves."""
    items_users = transposed(matrix)
    by_item = pointers(items_users)
    visits = _visits(pointers(matrix), by_item, changed.astype(np.int64), matrix.shape[1])
    touched = (items_users @ changed.astype(np.float32)) > 0
    whole = visits[:, 0].sum()
    found = {
        "users_changed": changed.mean(),
        "touched": touched[np.diff(by_item[0]) > 1].mean(),
        "rows": visits[touched, 0].sum() / whole,
        "item_pairs": visits[:, 1].sum() / whole,
        "user_pairs": 2 * visits[:, 2].sum() / whole,
    }
    return {name: round(float(value), 4) for name, value in found.items()}


def rows(n: int, work: Path, name: str) -> dict[str, Any]:
    """Swing of one day at one size, whole and patched."""
    data, day, kept = work / "data", work / "days" / name.replace(" ", "-"), work / f"{name}.npz"
    if not data.exists():
        scale.make_raw(data, n)
    if not day.exists():
        make_day(data, day, *DAYS[name])
    tables = [pd.read_parquet(path / "interactions.parquet", columns=[USER_ID, ITEM_ID]) for path in (data, day)]
    items = pd.concat([pd.read_parquet(path / "items.parquet", columns=[ITEM_ID]) for path in (data, day)])
    items = items.astype("str").sort_values(ITEM_ID, ignore_index=True)
    fused = {"before": tables[0], "after": pd.concat(tables)}
    matrix, users = {}, {}
    for when, pairs in fused.items():
        table = pd.DataFrame({column: encode(pairs[column].astype("str")) for column in pairs})
        matrix[when] = user_items_from_frame(table, items)
        users[when] = table[USER_ID].cat.categories
    took = np.zeros(len(users["after"]), np.int64)
    took[users["after"].get_indexer(users["before"])] = np.diff(matrix["before"].indptr)
    changed = np.diff(matrix["after"].indptr) != took  # items only come
    del tables, fused

    def patch(when: str) -> Any:
        ids = (users[when], pd.Index(items[ITEM_ID]))
        return patched(matrix[when], ids, kept, "", counts=False, compute=partial(swing, matrix[when], top_k=TOP_K))

    swing(matrix["before"][:1000], top_k=TOP_K)  # compiles the kernel
    patch("before")
    started = time.process_time()
    whole = swing(matrix["after"], top_k=TOP_K)
    full = time.process_time()
    after = patch("after")
    seconds = {"full": full - started, "update": time.process_time() - full}
    if any((a != b).any() for a, b in ((whole.indptr, after.indptr), (whole.indices, after.indices))):
        sys.exit("an update has other neighbours")
    if whole.data.tobytes() != after.data.tobytes():
        sys.exit("an update has other scores")
    kept.unlink()
    seconds = {key: round(value, 1) for key, value in seconds.items()}
    return {
        "interactions": int(matrix["after"].nnz),
        **seconds,
        "times_cheaper": round(seconds["full"] / seconds["update"], 2),
        "left": left_of_swing(matrix["after"], changed),
    }


def tables(n: int, work: Path, days: list[str]) -> dict[str, Any]:
    """Tables and Swing of some days."""
    base = work / "base"
    scale.make_raw(base / "data", n)
    set_params(base, yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8")))
    run(base, TABLES)
    return {name: both(base, work, name, TABLES) for name in days}


def llm(n: int, work: Path, days: list[str]) -> dict[str, Any]:
    """Synthesis and scoring of some days."""
    base = work / "base"
    scale.make_raw(base / "data", n)
    few = {"epochs": 1, "early_stopping": {"patience": 0}, "max_windows": 500}
    params = {
        "profile": "compact",
        "encode_text": {"source": "tfidf"},
        "train_generator": few,
        "train_discriminator": {"epochs": 1, "max_histories": 500},
        "fuse": {},
    }
    set_params(base, params)
    run(base, ("split", "tag", *TRAININGS))
    for stage in LLM:  # the tables before them cost next to nothing
        run(base, (stage,))
    return {name: both(base, work, name, ("split", "tag", "encode_text", *LLM)) for name in days}


def bound(size: int) -> dict[str, float]:
    """How much cheaper an update could be if Swing cost nothing, by benchmarks/results/scale.json."""
    stages = json.loads((ROOT / "benchmarks/results/scale.json").read_text())["sizes"][str(size)]
    seconds = {stage: stages[stage]["now"]["cpu_seconds"] for stage in TABLES}
    rest = sum(seconds.values()) - seconds["train_i2i"]
    return {
        "size": size,
        "all_seconds": round(rest + seconds["train_i2i"], 1),
        "tables_seconds": round(rest, 1),
        "times_cheaper": round((rest + seconds["train_i2i"]) / rest, 2),
    }


def expected_rows(n: int, changed: float) -> float:
    """Share of Swing's visits in touched rows, computed from popularity alone, as if users took items independently.

    A row has about n_i^2 of them, and none of its users changed with probability (1 - changed)^n_i.
    """
    users_of = n * scale._zipf(n // 100)  # noqa: SLF001
    return round(float((users_of**2 * (1 - (1 - changed) ** users_of)).sum() / (users_of**2).sum()), 4)


def both(base: Path, work: Path, name: str, stages: tuple[str, ...]) -> dict[str, Any]:
    """A day as an update and as a full run; both write the same bytes."""
    project, anew, day = work / name, work / "anew", work / "days" / name.replace(" ", "-")
    copy_of(base, project)
    n_users = make_day(base / "data", day, *DAYS[name])
    change_tables(project / "data", day=day)
    copy_of(project, anew)
    shutil.rmtree(anew / ".kept")
    update, full = run(project, stages), run(anew, stages)
    if content_md5(project / "artifacts") != content_md5(anew / "artifacts"):
        sys.exit(f"an update writes other bytes: {work}")
    for folder in (project, anew):
        shutil.rmtree(folder)
    times = sum(full.values()) / sum(update.values())
    print(name, full, update, round(times, 2), flush=True)
    return {"users": n_users, "full": full, "update": update, "times_cheaper": round(times, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="*", default=[])
    parser.add_argument("--days", nargs="*", choices=DAYS, default=list(DAYS))
    parser.add_argument("--stages", type=int)
    parser.add_argument("--llm", type=int)
    parser.add_argument("--work", type=Path, help="keeps the data of --sizes")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    found: dict[str, Any] = json.loads(options.out.read_text()) if options.out and options.out.exists() else {}
    cpu = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name"))
    found |= {"cpu": f"{cpu.partition(': ')[2]}, one thread", "bound": bound(10_000_000)}
    for n in (1_000_000, 10_000_000):
        computed = {name: expected_rows(n, changed) for name, changed in EXPECTED.items()}
        found.setdefault("expected_rows", {})[str(n)] = computed
    if options.out:
        write_json(found, options.out)

    def note(kind: str, size: int, values: dict[str, Any]) -> None:
        found.setdefault(kind, {}).setdefault(str(size), {}).update(values)
        print(kind, size, values, flush=True)
        if options.out:
            write_json(found, options.out)

    with tempfile.TemporaryDirectory() as temporary:
        work = options.work or Path(temporary)
        for n in options.sizes:
            for name in options.days:
                note("swing", n, {name: rows(n, work / str(n), name)})
        for kind, n, measure in (("stages", options.stages, tables), ("llm", options.llm, llm)):
            if n:
                note(kind, n, measure(n, Path(temporary) / kind, options.days))


if __name__ == "__main__":
    main()
