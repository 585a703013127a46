"""A large index behind `llm-i2i serve`: seconds until it is ready, and the memory of a second worker.

    python benchmarks/serve_large.py [--items 1000000] [--neighbours 100]

The version is made of random neighbours, as flat arrays: what is timed is the service's start, not the making of a
version. Its files lie in the page cache, as they do once the process that made the version is done. Every array's hash
is checked at the start.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import psutil
from serve import record, request, wrk

from llm_i2i.serving.app import SETTINGS
from llm_i2i.serving.flat import FlatIndex, searchable
from llm_i2i.serving.state import write_state
from llm_i2i.serving.write import encoded_texts, write_arrays

PORT = 8767


def write(versions: Path, n_items: int, n_neighbours: int) -> str:
    """Write a version of random neighbours; return its name."""
    rng = np.random.default_rng(0)
    titles = [f"Item number {n}" for n in range(n_items)]
    scores = -np.sort(-rng.random((n_items, n_neighbours), np.float32), axis=1)
    nobody = {"text_bounds": np.zeros(n_items + 1, np.int64), "text_items": np.empty(0, np.int32)}
    arrays = {
        **encoded_texts("id", [f"i{n:09d}" for n in range(n_items)]),
        **encoded_texts("title", titles),
        **encoded_texts("search", [str(searchable(title), "utf-8") for title in titles]),
        **nobody,
        "text_scores": np.empty(0, np.float32),
        "index_bounds": np.arange(0, n_items * n_neighbours + 1, n_neighbours),
        "index_items": rng.integers(0, n_items, n_items * n_neighbours, np.int32),
        "index_scores": scores.ravel(),
        "popular_items": np.arange(n_items, dtype=np.int32),
        "popular_scores": np.ones(n_items),
    }
    return write_arrays(arrays, {}, {"model": "swing", "params": {}}, versions)


def start(store: Path, workers: int) -> tuple[subprocess.Popen, float]:
    """Start workers; return the process and the seconds until it is ready."""
    settings = {"stores": {"large": str(store)}, "shares": {"large": 1.0}, "events": str(store), "api_key_file": ""}
    command = [sys.executable, "-m", "uvicorn", "llm_i2i.serving.app:from_environment", "--factory"]
    begun = time.monotonic()
    process = subprocess.Popen(
        [*command, "--http", "h11", "--port", str(PORT), "--workers", str(workers), "--no-access-log"],
        env=os.environ | {SETTINGS: json.dumps(settings)}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    while True:
        try:
            with urlopen(f"http://127.0.0.1:{PORT}/readyz"):
                return process, time.monotonic() - begun
        except OSError:
            time.sleep(0.02)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--neighbours", type=int, default=100)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        store = Path(scratch)
        version = write(store / "versions", options.items, options.neighbours)
        write_state(store, version=version)
        size = sum(path.stat().st_size for path in (store / "versions" / version).iterdir())
        begun = time.monotonic()
        FlatIndex(store / "versions" / version)
        loaded = time.monotonic() - begun
        rng = np.random.default_rng(0)
        asked = [request([f"i{n:09d}" for n in rng.integers(0, options.items, 5)], 10) for _ in range(1_000)]
        process, one = start(store, 1)
        process.terminate()
        process.wait()
        process, _ = start(store, 2)
        try:
            time.sleep(5)  # the second one may still be starting
            rate = wrk(PORT, asked, 8, 10)
            children = psutil.Process(process.pid).children()
            workers = [child for child in children if "spawn_main" in " ".join(child.cmdline())]
            own = sorted(worker.memory_full_info().uss for worker in workers)
        finally:
            process.terminate()
            process.wait()
    found = {
        "items": options.items,
        "neighbours": options.neighbours,
        "index_mb": round(size / 2**20, 1),
        "load_and_check_s": round(loaded, 2),
        "process_ready_s": round(one, 2),
        "workers_own_mb": [round(each / 2**20, 1) for each in own],
        "second_worker_of_index": round(own[-1] / size, 3),
        "requests_per_s_two_workers": round(rate),
    }
    print(json.dumps(found, indent=2))
    record("large", found)


if __name__ == "__main__":
    main()
