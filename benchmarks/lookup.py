"""Latency of the online lookup on real histories, against a plain dictionary of neighbours, in one run.

    python benchmarks/lookup.py FOLDER [--users 5000] [--top-k 10] [--last-m 0]

FOLDER holds interactions.csv (user_id, item_id, and timestamp or position). The index is Swing with 100
neighbours per item on everything but each user's last item; the query is the user's history. Both ways must
first give the same lists.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from llm_i2i.i2i import swing, to_index, user_items_from_frame
from llm_i2i.i2i.lookup import Lookup


def plain(index: pd.DataFrame) -> Callable[[Sequence[str], int, int], list[str]]:
    """The obvious way: a dictionary of lists and a sorted dictionary of sums."""
    neighbours: dict[str, list[tuple[str, float]]] = {}
    for item, other, score in zip(index["item_id"], index["neighbour_id"], index["score"].tolist(), strict=True):
        neighbours.setdefault(item, []).append((other, score))

    def recommend(history: Sequence[str], top_k: int, last_m: int) -> list[str]:
        sums: dict[str, float] = {}
        for item in reversed(history[-last_m:] if last_m else history):
            for other, score in neighbours.get(item, ()):
                sums[other] = sums.get(other, 0.0) + score
        for item in history:
            sums.pop(item, None)
        return sorted(sums, key=lambda item: (-float(np.float32(sums[item])), item))[:top_k]

    return recommend


def latencies(
    recommend: Callable[[Sequence[str]], object],
    histories: list[list[str]],
    clock: Callable[[], float] = time.perf_counter,
) -> list[float]:
    """Milliseconds of each call."""
    took = []
    for history in histories:
        started = clock()
        recommend(history)
        took.append(1_000 * (clock() - started))
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--users", type=int, default=5_000)
    parser.add_argument("--top-k", type=int, default=10)
    parser.add_argument("--last-m", type=int, default=0)
    options = parser.parse_args()
    taken = pd.read_csv(options.folder / "interactions.csv", dtype={"user_id": "str", "item_id": "str"})
    by = "timestamp" if "timestamp" in taken else "position"
    taken = taken.drop_duplicates(["user_id", "item_id"]).sort_values(["user_id", by], kind="stable")
    train = taken[taken.duplicated("user_id", keep="last")]
    items = pd.DataFrame({"item_id": np.sort(train["item_id"].unique())}).astype("str")
    started = time.perf_counter()
    index = to_index(swing(user_items_from_frame(train, items), top_k=100), items)
    print(
        f"{options.folder.name}: {len(items):,} items, {len(index):,} neighbours, {time.perf_counter() - started:.1f} s"
    )
    started = time.perf_counter()
    served = Lookup(index)
    print(f"lookup loaded in {time.perf_counter() - started:.2f} s")
    users = train.groupby("user_id")["item_id"].agg(list)
    chosen = users.sample(min(options.users, len(users)), random_state=0).tolist()
    longest = max(users, key=len)
    slow = plain(index)
    for history in [*chosen[:500], longest]:
        online = [item for item, _ in served.recommend(history, top_k=options.top_k, last_m=options.last_m)]
        if online != slow(history, options.top_k, options.last_m):
            sys.exit(f"the two ways differ for history {history}")
    ways = {
        "lookup": lambda history: served.recommend(history, top_k=options.top_k, last_m=options.last_m),
        "plain": lambda history: slow(history, options.top_k, options.last_m),
    }
    print("| way | p50 ms | p99 ms | CPU p50 ms | CPU p99 ms | longest history, ms |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name, way in ways.items():
        took = latencies(way, chosen)
        p50, p99 = np.quantile(took, [0.5, 0.99])
        # On a machine that others use, waiting for a turn makes the slowest calls: the thread's own time does not.
        cpu = np.quantile(latencies(way, chosen, time.thread_time), [0.5, 0.99])
        worst = statistics.median(latencies(way, [longest] * 21))
        print(f"| {name} | {p50:.3f} | {p99:.3f} | {cpu[0]:.3f} | {cpu[1]:.3f} | {worst:.2f} ({len(longest)} items) |")


if __name__ == "__main__":
    main()
