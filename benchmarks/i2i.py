"""Speed and memory of the I2I models against named alternatives, in one run on one machine.

    python benchmarks/i2i.py [--ard ../shared/ard] [--sizes 1000000,10000000] [--threads 1] [--python-10m]

Each contender runs in a process of its own, so that peak memory is its own; all are timed on the same matrix,
after a warm-up on a tiny one, and the shortest of several repetitions counts. Peak memory is that of the whole
process less its memory before the run. Writes benchmarks/results/i2i.{json,md,svg}. Install the alternatives
with `pip install -e .[bench]`; a missing one is skipped with the reason.
"""

import argparse
import itertools
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from scipy import sparse

from llm_i2i.i2i.bpr import BprOptions, train_bpr
from llm_i2i.i2i.item_knn import item_knn
from llm_i2i.i2i.swing import swing

mpl.use("Agg")
from matplotlib import pyplot as plt

RESULTS = Path(__file__).parent / "results"
TOP_K = 100
SECONDS = 6.0  # repeat a contender until so much time is spent
BPR = {"factors": 64, "epochs": 10, "learning_rate": 0.05, "regularization": 0.01}
Matrix = sparse.csr_matrix


def a_t_a(matrix: Matrix) -> object:
    return matrix.T.tocsr() @ matrix


def pairwise_python_swing(matrix: Matrix) -> object:
    """As tutorials have it: every pair of items, every pair of their common users, intersections of sets."""
    items_of = [set(matrix.indices[a:b].tolist()) for a, b in itertools.pairwise(matrix.indptr)]
    by_item = matrix.T.tocsr()
    users_of = [set(by_item.indices[a:b].tolist()) for a, b in itertools.pairwise(by_item.indptr)]
    weight = [max(len(items), 1) ** -0.5 for items in items_of]
    similar: dict[int, dict[int, float]] = {item: {} for item in range(len(users_of))}
    for i, j in itertools.combinations(range(len(users_of)), 2):
        score = 0.0
        for u, v in itertools.combinations(users_of[i] & users_of[j], 2):
            score += weight[u] * weight[v] / (1.0 + len(items_of[u] & items_of[v]))
        if score:
            similar[i][j] = similar[j][i] = score
    return {i: dict(sorted(row.items(), key=lambda pair: -pair[1])[:TOP_K]) for i, row in similar.items()}


def python_swing(matrix: Matrix) -> object:
    """The best plain Python we know: only pairs of users who share an item, two at least."""
    items_of = [set(matrix.indices[a:b].tolist()) for a, b in itertools.pairwise(matrix.indptr)]
    by_item = matrix.T.tocsr()
    similar: dict[int, dict[int, float]] = {}
    for item in range(matrix.shape[1]):
        users = by_item.indices[by_item.indptr[item] : by_item.indptr[item + 1]].tolist()
        row: dict[int, float] = {}
        for u, v in itertools.combinations(users, 2):
            both = items_of[u] & items_of[v]
            if len(both) < 2:
                continue
            gain = (len(items_of[u]) * len(items_of[v])) ** -0.5 / (1.0 + len(both))
            for other in both:
                if other != item:
                    row[other] = row.get(other, 0.0) + gain
        similar[item] = dict(sorted(row.items(), key=lambda pair: -pair[1])[:TOP_K])
    return similar


def implicit_knn(name: str) -> Callable[[Matrix], object]:
    def run(matrix: Matrix) -> object:
        from implicit import nearest_neighbours

        model = getattr(nearest_neighbours, name)(K=TOP_K, num_threads=threads())
        model.fit(matrix, show_progress=False)
        return model

    return run


def implicit_bpr(matrix: Matrix) -> object:
    from implicit.bpr import BayesianPersonalizedRanking

    options = {**BPR, "iterations": BPR["epochs"]}
    del options["epochs"]
    model = BayesianPersonalizedRanking(**options, num_threads=threads(), random_state=1)
    model.fit(matrix, show_progress=False)
    return model


def similaripy_cosine(matrix: Matrix) -> object:
    import similaripy

    taken = np.flatnonzero(np.bincount(matrix.indices, minlength=matrix.shape[1]))  # it takes no empty row
    return similaripy.cosine(matrix[:, taken].T.tocsr(), k=TOP_K, verbose=False, num_threads=threads())


def our_bpr(matrix: Matrix) -> object:
    rest = {"negative_sampling": "uniform", "with_bias": False, "validation_share": 0.0, "patience": 1, "seed": 1}
    return train_bpr(sparse.csr_array(matrix), BprOptions(**BPR, **rest))


CONTENDERS: dict[str, Callable[[Matrix], object]] = {
    "scipy A^T A": a_t_a,
    "swing": lambda matrix: swing(sparse.csr_array(matrix), top_k=TOP_K),
    "item_knn": lambda matrix: item_knn(sparse.csr_array(matrix), top_k=TOP_K),
    "implicit cosine": implicit_knn("CosineRecommender"),
    "implicit BM25": implicit_knn("BM25Recommender"),
    "similaripy cosine": similaripy_cosine,
    "plain-Python Swing": python_swing,
    "plain-Python Swing, all item pairs": pairwise_python_swing,
    "bpr": our_bpr,
    "implicit BPR": implicit_bpr,
}


def threads() -> int:
    """Threads of this run."""
    return int(os.environ["NUMBA_NUM_THREADS"])


def zipf(n: int) -> Matrix:
    """About n interactions: n / 10 users, n / 100 items, item popularity ~ rank^-0.8, user lengths ~ geometric."""
    generator = np.random.default_rng(0)
    n_users, n_items = n // 10, n // 100
    share = np.arange(1, n_items + 1) ** -0.8
    users = np.repeat(np.arange(n_users), generator.geometric(0.1, n_users))
    items = np.searchsorted(np.cumsum(share / share.sum()), generator.random(len(users)))
    keys = np.unique(users * n_items + np.minimum(items, n_items - 1))
    ones = np.ones(len(keys), np.float32)
    return Matrix((ones, (keys // n_items, keys % n_items)), shape=(n_users, n_items))


def ard(folder: Path) -> Matrix:
    """Training interactions: all of a user's items but the last two."""
    rows = pd.read_csv(folder / "interactions.csv", dtype={"user_id": str, "item_id": str})
    last = rows.groupby("user_id")["position"].transform("max")
    users, items = pd.factorize(rows["user_id"], sort=True)[0], pd.factorize(rows["item_id"], sort=True)[0]
    keep = (rows["position"] < last - 1).to_numpy()
    ones = np.ones(int(keep.sum()), np.float32)
    return Matrix((ones, (users[keep], items[keep])), shape=(users.max() + 1, items.max() + 1))


def memory_mib(field: str) -> float:
    """Resident memory of this process: VmRSS now, or VmHWM at its highest."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split(f"{field}:")[1].split()[0]) / 1024


def child(name: str, path: Path) -> None:
    """Time one contender, alternating with A^T A, and print JSON."""
    run, matrix = CONTENDERS[name], sparse.load_npz(path)
    try:
        run(Matrix(matrix[:200]))  # compiles, imports
    except ImportError as error:
        print(json.dumps({"skipped": f"{error}; pip install -e .[bench]"}))
        return
    times: list[float] = []
    yardstick: list[float] = []
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the highest mark starts again from here
    before = memory_mib("VmRSS")
    while not times or (sum(times) + sum(yardstick) < SECONDS and len(times) < 30):
        started = time.process_time()
        run(matrix)
        times.append(time.process_time() - started)
        if len(times) == 1:
            memory = memory_mib("VmHWM") - before
        if times[0] < SECONDS / 2:
            started = time.process_time()
            a_t_a(matrix)
            yardstick.append(time.process_time() - started)
    result = {"cpu_s": min(times), "repetitions": len(times), "memory_mib": memory}
    print(json.dumps(result | {"a_t_a_s": min(yardstick, default=None)}))


def measure(matrix: Matrix, label: str, names: list[str], n_threads: int) -> list[dict[str, Any]]:
    """Run contenders one after another."""
    rows = []
    env = {**os.environ}
    for key in ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        env[key] = str(n_threads)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "matrix.npz"
        sparse.save_npz(path, matrix, compressed=False)
        for name in names:
            done = subprocess.run(
                [sys.executable, __file__, "--child", name, str(path)],
                env=env,
                capture_output=True,
                text=True,
                check=False,
            )
            result = (
                json.loads(done.stdout.splitlines()[-1])
                if done.returncode == 0
                else {"skipped": f"exit {done.returncode}: {done.stderr.strip()[-200:]}"}
            )
            rows.append({"data": label, "interactions": int(matrix.nnz), "contender": name, **result})
            print(json.dumps(rows[-1]), flush=True)
    base = next((row.get("cpu_s") for row in rows if row["contender"] == "scipy A^T A"), None)
    for row in rows:
        if "cpu_s" in row:
            yardstick = row.get("a_t_a_s") or base
            row["ratio_to_a_t_a"] = row["cpu_s"] / yardstick if yardstick else None
    return rows


def as_table(rows: list[dict[str, Any]], n_threads: int) -> str:
    """The Markdown table."""
    lines = [
        f"CPU seconds (shortest repetition), {n_threads} thread(s), top {TOP_K}; ratio to scipy's A^T A timed in turn.",
        "BPR: " + ", ".join(f"{key} {value}" for key, value in BPR.items()) + ".",
        f"{platform.processor() or platform.machine()}, Python {platform.python_version()}.",
        "",
        "| data | interactions | contender | CPU s | ratio to A^T A | memory MiB |",
        "| --- | ---: | --- | ---: | ---: | ---: |",
    ]
    for row in rows:
        head = f"| {row['data']} | {row['interactions']:,} | {row['contender']} |"
        if "skipped" in row:
            lines.append(f"{head} skipped: {row['skipped']} | | |")
            continue
        ratio = f"{row['ratio_to_a_t_a']:.2f}" if row.get("ratio_to_a_t_a") else ""
        lines.append(f"{head} {row['cpu_s']:.3f} | {ratio} | {row['memory_mib']:.0f} |")
    return "\n".join(lines) + "\n"


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Cost against size, both logarithmic."""
    figure, axes = plt.subplots(figsize=(7, 4.5))
    for name in CONTENDERS:
        points = sorted((r["interactions"], r["cpu_s"]) for r in rows if r["contender"] == name and "cpu_s" in r)
        if points:
            axes.plot(*zip(*points, strict=True), marker="o", label=name, lw=2.5 if name == "swing" else 1)
    axes.set(xscale="log", yscale="log", xlabel="interactions", ylabel="CPU seconds")
    axes.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ard", type=Path, default=Path("../shared/ard"))
    parser.add_argument("--sizes", default="1000000,10000000")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--python-10m", action="store_true", help="plain-Python Swing beyond 500,000 interactions too")
    parser.add_argument("--child", nargs=2, metavar=("CONTENDER", "MATRIX"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child[0], Path(options.child[1]))
        return
    data: dict[str, Callable[[], Matrix]] = {}
    for name in ("toys", "beauty"):
        if (options.ard / name / "interactions.csv").exists():
            data[f"ARD {name}"] = lambda name=name: ard(options.ard / name)
        else:
            print(f"ARD {name}: skipped, {options.ard / name} is not there")
    for size in (int(part) for part in options.sizes.split(",") if part):
        data[f"Zipf {size // 1_000_000}M"] = lambda size=size: zipf(size)
    rows: list[dict[str, Any]] = []
    for label, make in data.items():
        matrix = make()
        slow = matrix.nnz > 500_000 and not options.python_10m  # minutes a repetition
        names = [name for name in CONTENDERS if not (slow and "Python" in name)]
        rows += measure(matrix, label, names, options.threads)
    RESULTS.mkdir(exist_ok=True)
    suffix = "" if options.threads == 1 else f"-{options.threads}-threads"
    (RESULTS / f"i2i{suffix}.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    (RESULTS / f"i2i{suffix}.md").write_text(as_table(rows, options.threads), encoding="utf-8")
    plot(rows, RESULTS / f"i2i{suffix}.svg")
    print(as_table(rows, options.threads))


if __name__ == "__main__":
    main()
