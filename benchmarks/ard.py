"""Item-to-item models on ARD (Amazon Toys and Beauty), plain and tuned, with the project's own evaluation.

    python benchmarks/ard.py --data ../shared/ard [--names toys beauty] [--trials 100] [--objective recall@10]

Leave-one-out, index = train, ranking over the whole catalogue. Plain: the paper's setting, whole history as
query. Tuned: options and query chosen on valid, the same number of trials for every model; test is measured
once, for the setting chosen. `known` are figures measured elsewhere with other code.
"""

import argparse
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from llm_i2i.data.long_tail import tag_items
from llm_i2i.data.sources import read_raw
from llm_i2i.data.split import Split, split_interactions
from llm_i2i.evaluation import Protocol, evaluate_index
from llm_i2i.evaluation.tuning import PLAIN, tune
from llm_i2i.i2i import to_index, user_items_from_frame
from llm_i2i.i2i.train import train_similar
from llm_i2i.params import SplitParams, TagParams, load_params

# Plain: recall@5, recall@10, recall@10 of targets with at most 5 training interactions.
KNOWN_PLAIN = {
    ("toys", "swing"): (0.0454, 0.0657, 0.0210),
    ("toys", "item_knn"): (0.0488, 0.0665, 0.0704),
    ("beauty", "swing"): (0.0387, 0.0597, 0.0098),
    ("beauty", "item_knn"): (0.0394, 0.0567, 0.0442),
}
KNOWN_TUNED = {  # recall@10
    ("toys", "swing, the paper's"): 0.0749,
    ("toys", "swing"): 0.0837,
    ("toys", "item_knn"): 0.0790,
    ("toys", "bm25"): 0.0884,
}
PAPERS_SWING = {
    "user_exponent": (0.5,), "user_shift": (0.0,), "self_pair_weight": (0.0,), "popularity_exponent": (0.0,),
}  # fmt: skip
SEARCHES = {
    "swing, the paper's": ("swing", PAPERS_SWING),
    "swing": ("swing", {}),
    "item_knn": ("item_knn", {}),
    "bm25": ("bm25", {}),
}
SEED = 42


@dataclass(frozen=True)
class Data:
    """One data set, split and tagged."""

    split: Split
    items: pd.DataFrame


def read(folder: Path) -> Data:
    """Read, split leave-one-out and tag a data set."""
    raw = read_raw(folder)
    params = load_params(Path(__file__).parents[1] / "params.yaml")
    by_user = SplitParams.model_validate({**params.split.model_dump(), "strategy": "leave_one_out"})
    split = split_interactions(raw.interactions, params=by_user, seed=SEED)
    tags = TagParams(long_tail_share=0.2, tail_max_count=5, head_share=0.2)
    return Data(split, tag_items(raw.items, split.train, params=tags, seed=SEED))


def measure(data: Data, model: str, options: dict[str, Any]) -> tuple[dict[str, Any], float]:
    """Train on train and evaluate on test; return metrics and seconds of the evaluation."""
    own = {name: value for name, value in options.items() if name not in ("top_k", "last_m", "decay")}
    similar = train_similar(
        model, user_items_from_frame(data.split.train, data.items), options=own, top_k=options["top_k"], seed=SEED
    )
    protocol = Protocol.from_params(load_params(Path(__file__).parents[1] / "params.yaml")).model_copy(
        update={"index": "train", "last_m": options["last_m"], "decay": options["decay"]}
    )
    index = to_index(similar, data.items)
    started = time.perf_counter()
    metrics, _ = evaluate_index(
        index=index,
        train=data.split.train,
        valid=data.split.valid,
        test=data.split.test,
        items=data.items,
        protocol=protocol,
    )
    return metrics, time.perf_counter() - started


def figures(metrics: dict[str, Any]) -> str:
    """Recall@5, NDCG@5, Recall@10, NDCG@10, tail Recall@10 as table cells."""
    overall = metrics["overall"]
    cells = [overall["recall@5"], overall["ndcg@5"], overall["recall@10"], overall["ndcg@10"]]
    return " | ".join(f"{value:.4f}" for value in [*cells, tail_recall(metrics)])


def tail_recall(metrics: dict[str, Any]) -> float:
    """Recall@10 of targets with at most 5 training interactions, those without any among them."""
    tail = [metrics["buckets"][name] for name in ("tail", "cold")]
    hits = sum(part["n_users"] * part.get("recall@10", 0.0) for part in tail)
    return hits / max(1, sum(part["n_users"] for part in tail))


def plain(name: str, data: Data) -> None:
    """Print the plain models beside the known figures."""
    print(f"\n### {name}: plain\n")
    print("| model | R@5 | N@5 | R@10 | N@10 | R@10 tail | known R@5, R@10, R@10 tail | largest gap | seconds |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | --- | ---: | ---: |")
    settings = {
        "swing": {"smoothing": 1.0, "user_exponent": 0.5, "user_shift": 0.0, "top_k": 100},
        "item_knn": {"top_k": len(data.items)},
        "bm25": {"k1": 1.2, "b": 0.2, "top_k": 50, "last_m": 3, "decay": 0.8},
    }
    for model, options in settings.items():
        metrics, seconds = measure(data, model, {"last_m": 0, "decay": 1.0, **options})
        known = KNOWN_PLAIN.get((name, model))
        found = (metrics["overall"]["recall@5"], metrics["overall"]["recall@10"], tail_recall(metrics))
        gap = f"{max(abs(a - b) for a, b in zip(found, known, strict=True)):.5f}" if known else "–"
        note = ", ".join(f"{value:.4f}" for value in known) if known else "–"
        label = "bm25, M=3, d=.8, top 50" if model == "bm25" else model
        print(f"| {label} | {figures(metrics)} | {note} | {gap} | {seconds:.2f} |")


def tuned(name: str, data: Data, *, trials: int, objective: str) -> None:
    """Print the tuned models: chosen on valid, measured once on test."""
    print(f"\n### {name}: tuned on valid, {trials} trials each, {objective}\n")
    print("| model | valid | R@5 | N@5 | R@10 | N@10 | R@10 tail | known R@10 | setting | seconds |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- | ---: |")
    for label, (model, grid) in SEARCHES.items():
        started = time.perf_counter()
        found = tune(
            model,
            train=data.split.train,
            valid=data.split.valid,
            items=data.items,
            trials=trials,
            objective=objective,
            seed=SEED,
            grid=grid,
        )
        seconds = time.perf_counter() - started
        metrics, _ = measure(data, model, found.options)
        known = KNOWN_TUNED.get((name, label))
        shown = ", ".join(
            f"{key} {value:g}"
            for key, value in found.options.items()
            if value != PLAIN[model][key] or len(grid.get(key, ())) != 1
        )
        row = f"| {label} | {found.value:.4f} | {figures(metrics)} | {known or '–'} | {shown} | {seconds:.0f} |"
        print(row, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/ard"))
    parser.add_argument("--names", nargs="+", default=["toys", "beauty"])
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--objective", default="recall@10")
    options = parser.parse_args()
    for name in options.names:
        data = read(options.data / name)
        plain(name, data)
        tuned(name, data, trials=options.trials, objective=options.objective)


if __name__ == "__main__":
    main()
