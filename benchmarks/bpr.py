"""BPR against implicit's, as item-to-item models: quality after the same search, time on one thread.

    pip install -e '.[bench]'; python benchmarks/bpr.py [--data ../shared/ard] [--names toys beauty] [--trials 20]

Both are trained with the same drawn settings (`with_bias`: the item's bias as one more factor of the similarity, for
both; the sampler of negatives is ours alone, implicit draws them by popularity). The query is the last 3 items with
weights .8^age. The setting is chosen by Recall@10 on valid (query: train), test is measured for the chosen one (query:
train and valid). Writes benchmarks/results/bpr.json.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from ard import Data, read
from implicit.bpr import BayesianPersonalizedRanking
from scipy import sparse
from threadpoolctl import threadpool_limits

from llm_i2i.catalogue import histories_of, item_indices
from llm_i2i.i2i import recommend, user_items_from_frame
from llm_i2i.i2i.bpr import BprOptions, train_bpr
from llm_i2i.i2i.factors import cosine_top_k

LAST_M, DECAY, TOP_K, SEED = 3, 0.8, 100, 1
CHOICES: dict[str, tuple[Any, ...]] = {
    "factors": (64, 128),
    "epochs": (60, 100, 150),
    "learning_rate": (0.05, 0.1, 0.2),
    "regularization": (0.005, 0.01, 0.02, 0.04),
    "with_bias": (False, True),
    "negative_sampling": ("uniform", "popularity"),
}
Setting = dict[str, Any]
FIXED = {"negative_sampling": "uniform", "validation_share": 0.0, "patience": 3, "seed": SEED}


def ours(user_items: Any, setting: Setting) -> np.ndarray:
    """Item factors of the project's BPR, with the bias as last column."""
    model = train_bpr(user_items, BprOptions(**FIXED | setting))
    return np.column_stack([model.item, model.item_bias])


def implicits(user_items: Any, setting: Setting) -> np.ndarray:
    """The same of implicit's."""
    model = BayesianPersonalizedRanking(
        factors=setting["factors"],
        iterations=setting["epochs"],
        learning_rate=setting["learning_rate"],
        regularization=setting["regularization"],
        random_state=SEED,
        num_threads=1,
    )
    model.fit(sparse.csr_matrix(user_items).astype(np.float32), show_progress=False)
    return np.asarray(model.item_factors)


def recall_at_10(data: Data, vectors: np.ndarray, *, test: bool) -> float:
    """Recall@10 on test, or on valid with the training items as query."""
    rows, seen = (data.split.valid, data.split.train)
    if test:
        rows, seen = data.split.test, pd.concat([data.split.train, data.split.valid], ignore_index=True)
    rows = rows.sort_values("user_id", kind="stable")
    found = recommend(
        cosine_top_k(np.ascontiguousarray(vectors, dtype=np.float32), top_k=TOP_K),
        histories_of(rows["user_id"], seen, data.items),
        top_k=10,
        targets=item_indices(rows["item_id"], data.items, where="targets"),
        last_m=LAST_M,
        decay=DECAY,
    )
    return float(((found.ranks > 0) & (found.ranks <= 10)).mean())


def search(data: Data, train: Callable[[Any, Setting], np.ndarray], settings: list[Setting]) -> dict[str, Any]:
    """Try every setting; the best on valid with its figure on test."""
    user_items = user_items_from_frame(data.split.train, data.items)
    taken = data.items["n_train"].to_numpy() > 0
    trials = []
    for setting in settings:
        started = time.process_time()
        vectors = train(user_items, setting) * taken[:, None]
        seconds = time.process_time() - started
        vectors = vectors if setting["with_bias"] else vectors[:, :-1]
        trials.append((recall_at_10(data, vectors, test=False), seconds, vectors, setting))
    valid, seconds, vectors, setting = max(trials, key=lambda trial: trial[0])
    return {
        "valid_recall@10": valid,
        "test_recall@10": recall_at_10(data, vectors, test=True),
        "seconds": seconds,
        "seconds_all": sum(trial[1] for trial in trials),
        "setting": setting,
    }


def main() -> None:
    """Search on each data set, print a table and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/ard"))
    parser.add_argument("--names", nargs="+", default=["toys", "beauty"])
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results/bpr.json")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    settings = [
        {name: values[int(rng.integers(len(values)))] for name, values in CHOICES.items()}
        for _ in range(options.trials)
    ]
    print("| data | | valid Recall@10 | test Recall@10 | CPU s, chosen | CPU s, all trials |")
    print("| --- | --- | ---: | ---: | ---: | ---: |")
    results: dict[str, dict[str, Any]] = {}
    with threadpool_limits(limits=1):
        for name in options.names:
            data = read(options.data / name)
            train_bpr(  # compiles
                user_items_from_frame(data.split.train, data.items),
                BprOptions(**FIXED, factors=8, epochs=1, learning_rate=0.1, regularization=0.01, with_bias=False),
            )  # fmt: skip
            for who, train in (("ours", ours), ("implicit", implicits)):
                found = search(data, train, settings)
                results.setdefault(name, {})[who] = found
                print(
                    f"| {name} | {who} | {found['valid_recall@10']:.4f} | {found['test_recall@10']:.4f} "
                    f"| {found['seconds']:.1f} | {found['seconds_all']:.0f} |",
                    flush=True,
                )
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps({"trials": options.trials, **results}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
