"""What an evaluation costs: one model on ARD with all metrics, and the intervals.

    python benchmarks/evaluation.py --data ../shared/ard/toys [--resamples 10000]

Ratios: ranking and metrics against pytrec_eval on the same lists (which get no interval and no catalogue
metric there), the bootstrap against drawing users one resample at a time.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytrec_eval
from ard import SEED, read

from llm_i2i.catalogue import histories_of
from llm_i2i.evaluation import Protocol, evaluate_index
from llm_i2i.evaluation.bootstrap import pooled_difference
from llm_i2i.evaluation.metrics import per_user_metric
from llm_i2i.i2i import recommend, swing, to_index, user_items_from_frame
from llm_i2i.params import load_params


def timed(call: Callable[[], Any]) -> tuple[Any, float, float]:
    """Return a result, wall seconds and CPU seconds; called once before, so that nothing is compiled."""
    call()
    wall, cpu = time.perf_counter(), time.process_time()
    result = call()
    return result, time.perf_counter() - wall, time.process_time() - cpu


def with_trec_eval(lists: np.ndarray[Any, Any], targets: np.ndarray[Any, Any]) -> float:
    """Compute the same accuracy metrics with pytrec_eval; return mean NDCG@10."""
    qrels = {str(user): {str(target): 1} for user, target in enumerate(targets)}
    run = {
        str(user): {str(item): float(-place) for place, item in enumerate(items) if item >= 0} or {"none": 0.0}
        for user, items in enumerate(lists)
    }
    measures = {"recall.5,10,20,50", "ndcg_cut.5,10,20,50", "success.5,10,20,50", "map_cut.5,10,20,50", "recip_rank"}
    found = pytrec_eval.RelevanceEvaluator(qrels, measures).evaluate(run)
    return float(np.mean([values["ndcg_cut_10"] for values in found.values()]))


def one_by_one(difference: np.ndarray[Any, Any], resamples: int) -> np.ndarray[Any, Any]:
    """Resample users in a loop."""
    generator = np.random.default_rng(SEED)
    n = len(difference)
    return np.array([difference[generator.integers(0, n, n)].mean() for _ in range(resamples)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/ard/toys"))
    parser.add_argument("--resamples", type=int, default=10_000)
    options = parser.parse_args()
    data = read(options.data)
    train, valid, test = data.split.train, data.split.valid, data.split.test
    similar = swing(user_items_from_frame(train, data.items))
    index = to_index(similar, data.items)
    protocol = Protocol.from_params(load_params(Path(__file__).parents[1] / "params.yaml"))
    given = {"train": train, "valid": valid, "test": test, "items": data.items, "protocol": protocol}
    print(f"{options.data.name}: {len(test):,} test users, {len(data.items):,} items, ks {protocol.ks}\n")
    print("| what | wall seconds | CPU seconds | against |")
    print("| --- | ---: | ---: | --- |")
    (metrics, per_user), wall, cpu = timed(lambda: evaluate_index(index=index, **given))
    histories = histories_of(test["user_id"], train, data.items)
    targets = data.items.index[np.searchsorted(data.items["item_id"], test["item_id"])].to_numpy()
    lists = recommend(similar, histories, top_k=50).lists
    _, their_wall, _ = timed(lambda: with_trec_eval(lists, targets))
    print(
        f"| evaluation of one model, all metrics and per-user rows | {wall:.2f} | {cpu:.2f} | "
        f"pytrec_eval, accuracy metrics of ready lists alone: {their_wall / wall:.1f}x as long |"
    )
    a = per_user_metric("ndcg@10", per_user["rank"].to_numpy())
    b = np.random.default_rng(SEED).permutation(a)
    _, wall, cpu = timed(lambda: pooled_difference([a - b], resamples=options.resamples, seed=SEED))
    _, loop_wall, _ = timed(lambda: one_by_one(a - b, options.resamples // 10))
    print(
        f"| {options.resamples:,} paired resamples | {wall:.2f} | {cpu:.2f} | "
        f"a loop over resamples: {10 * loop_wall / wall:.0f}x as long |"
    )
    seeds = [np.random.default_rng(n).permutation(a) - b for n in range(3)]
    _, wall, cpu = timed(lambda: pooled_difference(seeds, resamples=options.resamples, seed=SEED))
    print(f"| the same over 3 against 3 trainings, users and seeds | {wall:.2f} | {cpu:.2f} | – |")
    print(f"\nrecall@10 {metrics['overall']['recall@10']:.4f}")


if __name__ == "__main__":
    main()
