"""The compact backbone as a recommender by itself, from raw interactions, in one command.

    python benchmarks/compact.py [DATA] [--tail-weights 1 4] [--threads 2] [--out benchmarks/results/compact.json]

DATA holds interactions.csv and items.csv. Leave-one-out: trained on train alone, the number of epochs found on
users' last training items, the query is train and valid, the whole catalogue is ranked. Writes and prints one row
for each tail weight: wall and CPU seconds of the training, Recall@10 and NDCG@10 overall and on the tail (items of
at most 5 training interactions).
"""

import argparse
import csv
import json
import logging
import tempfile
import time
from pathlib import Path
from typing import Any

import pandas as pd

from llm_i2i.data.identifiers import identify_items
from llm_i2i.data.long_tail import tag_items
from llm_i2i.data.sources import read_raw
from llm_i2i.data.split import Split, split_interactions
from llm_i2i.evaluation.generator import evaluate_generator
from llm_i2i.llm.engine.base_model import prepare_base_model
from llm_i2i.llm.engine.shards import Shards
from llm_i2i.llm.generator import train_generator
from llm_i2i.llm.identifiers import Identifiers
from llm_i2i.llm.role import LlmSetup
from llm_i2i.llm.text_vectors import encode_items
from llm_i2i.params import Params, read_profile

ROOT = Path(__file__).parents[1]


def compact_params(threads: int) -> Params:
    """Profile compact."""
    values = read_profile("compact", ROOT)
    values["runtime"] |= {"device": "cpu", "threads": threads}
    return Params.model_validate(values)


def measure(params: Params, split: Split, items: pd.DataFrame, *, tail_weight: float, folder: Path) -> dict[str, Any]:
    """Train with one tail weight and evaluate on test."""
    settings = params.train_generator.model_copy(update={"tail_weight": tail_weight})
    text, _ = encode_items(items, params.encode_text, runtime=params.runtime, downloads=folder)
    names, new_tokens = identify_items(items, split.train, text=text, params=params.identify, seed=params.seed)
    identifiers = Identifiers(tuple(names), tuple(new_tokens))
    setup = LlmSetup(items, identifiers, text, folder / "base_model", params.runtime, params.seed)
    generator = folder / f"generator-{tail_weight:g}"
    wall, cpu = time.perf_counter(), time.process_time()
    train_generator(
        train=split.train,
        held_out=split.held_out,
        setup=setup,
        params=settings,
        out=generator,
        checkpoints=folder / f"checkpoints-{tail_weight:g}",
    )
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    metrics, _ = evaluate_generator(
        history=pd.concat([split.train, split.valid], ignore_index=True),
        test=split.test,
        setup=setup,
        generator=generator,
        params=params.model_copy(update={"train_generator": settings}),
        shards=Shards(folder / "shards"),
    )
    with (generator / "early_stopping.csv").open(encoding="utf-8") as file:
        searched = list(csv.DictReader(file))
    best = max(searched, key=lambda row: float(row["ndcg@10"]))
    return {
        "tail_weight": tail_weight,
        "wall_seconds": round(wall, 1),
        "cpu_seconds": round(cpu, 1),
        "epochs": float(best["epoch"]),
        "epochs_searched": float(searched[-1]["epoch"]),
        "recall@5": metrics["overall"]["recall@5"],
        "recall@10": metrics["overall"]["recall@10"],
        "ndcg@10": metrics["overall"]["ndcg@10"],
        "tail_recall@10": metrics["buckets"]["tail"]["recall@10"],
        "tail_users": metrics["buckets"]["tail"]["n_users"],
        "coverage": metrics[f"coverage@{max(params.evaluate.ks)}"],
    }


def main() -> None:
    """Measure every tail weight, print a Markdown table and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", default=Path("../shared/ard/toys"))
    parser.add_argument("--tail-weights", type=float, nargs="+", default=[1.0, 4.0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/compact.json")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    params = compact_params(options.threads)
    raw = read_raw(options.data)
    split = split_interactions(raw.interactions, params=params.split, seed=params.seed)
    items = tag_items(raw.items, split.train, params=params.tag, seed=params.seed)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare_base_model(params.base_model, seed=params.seed, out=folder / "base_model", downloads=folder)
        for tail_weight in options.tail_weights:
            rows.append(measure(params, split, items, tail_weight=tail_weight, folder=folder))
            result = {"data": options.data.name, "threads": options.threads, "seed": params.seed, "rows": rows}
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print("| " + " | ".join(rows[0]) + " |\n|" + " ---: |" * len(rows[0]))
    for row in rows:
        print("| " + " | ".join(f"{value:.4g}" for value in row.values()) + " |")


if __name__ == "__main__":
    main()
