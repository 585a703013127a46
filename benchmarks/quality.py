"""What fine-tuning adds: the generator alone and the discriminator, before and after, on one catalogue.

    python benchmarks/quality.py FOLDER [--base-model artifacts/base_model] [--users 300] [--windows 300]

FOLDER holds interactions.csv (user_id, item_id, position) and items.csv (item_id, title). Each user's last item is
the test target, the last but one is left out of training too. The generator ranks the whole catalogue by
constrained beams after the user's last items of train and valid; a hit is the test item among the first ten. The
same users are asked before and after; the interval is of their paired differences. The budget is a fraction of
what a real training takes: the figures say which way fine-tuning goes, not how far. With --keep a run that was
killed goes on from its last checkpoint.
"""

import argparse
import json
import logging
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from llm_i2i.data.long_tail import tag_items
from llm_i2i.evaluation.bootstrap import pooled_difference
from llm_i2i.evaluation.generator import evaluate_generator
from llm_i2i.evaluation.metrics import per_user_metric
from llm_i2i.llm.discriminator import train_discriminator
from llm_i2i.llm.engine.device import resolve_runtime
from llm_i2i.llm.engine.shards import Shards
from llm_i2i.llm.generator import train_generator
from llm_i2i.llm.identifiers import Identifiers
from llm_i2i.llm.role import LlmSetup
from llm_i2i.params import EvaluateGeneratorParams, Params, RuntimeParams, load_params
from llm_i2i.schema import HELD_OUT, INTERACTIONS

TOP = 10


def leave_two_out(folder: Path, params: Params) -> tuple[pd.DataFrame, dict[str, pd.DataFrame]]:
    """Catalogue tagged on train, and the interactions of train, valid and test."""
    table = pd.read_csv(folder / "interactions.csv", dtype={"user_id": "str", "item_id": "str"})
    table = table.sort_values(["user_id", "position"], kind="stable", ignore_index=True)
    table["timestamp"] = table["position"]
    from_end = table.groupby("user_id").cumcount(ascending=False)
    places = {"train": from_end > 1, "valid": from_end == 1, "test": from_end == 0}
    parts = {
        name: table[rows].astype(INTERACTIONS)[list(INTERACTIONS)].reset_index(drop=True)
        for name, rows in places.items()
    }
    items = pd.read_csv(folder / "items.csv", dtype="str", keep_default_na=False)[["item_id", "title"]]
    return tag_items(items, parts["train"], params=params.tag, seed=params.seed), parts


def main() -> None:
    """Train both adapters on a budget and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--base-model", type=Path, default=Path("artifacts/base_model"))
    parser.add_argument("--users", type=int, default=300)
    parser.add_argument("--windows", type=int, default=300)
    parser.add_argument("--histories", type=int, default=200)
    parser.add_argument(
        "--keep", type=Path, help="folder of adapters and checkpoints: kept there, and used if they are there"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--softmax", choices=("catalogue", "vocabulary"), help="default: as params.yaml")
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("llm_i2i").setLevel(logging.INFO)
    params = load_params()
    runtime_params = RuntimeParams(
        device="auto", precision="auto", threads=options.threads, processes=1, engine="local"
    )
    runtime = resolve_runtime(runtime_params)
    items, parts = leave_two_out(options.folder, params)
    softmax = options.softmax or params.train_generator.softmax
    generator = params.train_generator.model_copy(update={"max_windows": options.windows, "softmax": softmax})
    judge = params.train_discriminator.model_copy(update={"max_histories": options.histories})
    nothing = pd.DataFrame(columns=list(HELD_OUT)).astype(HELD_OUT)
    names = Identifiers(tuple(items["text"]))
    setup = LlmSetup(items, names, np.zeros((len(items), 0)), options.base_model, runtime_params, params.seed)

    asked = EvaluateGeneratorParams(arms=("llm_only",), max_users=options.users, num_beams=TOP, batch_users=32)
    settings = params.model_copy(update={"train_generator": generator, "evaluate_generator": asked})

    def hits(adapter: Path | None) -> pd.Series:
        _, per_user = evaluate_generator(
            history=pd.concat([parts["train"], parts["valid"]], ignore_index=True), test=parts["test"],
            generator=adapter, params=settings, setup=setup, shards=Shards(kept / "shards"),
        )  # fmt: skip
        return per_user["rank"]

    started = time.perf_counter()
    print(f"{len(items):,} items, {options.users:,} test users, {options.windows} windows, "
          f"{options.histories} histories, {torch.get_num_threads()} threads, "
          f"softmax over the {softmax}, {runtime.facts['device']} {runtime.facts['precision']}\n")  # fmt: skip
    print("| what | before | after | note |\n| --- | ---: | ---: | --- |", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        kept = options.keep or Path(scratch)
        training = {"train": parts["train"], "held_out": nothing, "setup": setup}
        if not (kept / "generator" / "task.json").is_file():
            train_generator(params=generator, out=kept / "generator",
                            checkpoints=kept / "generator-states", **training)  # fmt: skip
        before, after = (
            per_user_metric(f"recall@{TOP}", ranks.to_numpy()) for ranks in (hits(None), hits(kept / "generator"))
        )
        found = pooled_difference([after - before], resamples=10_000, seed=0)
        print(f"| generator alone, Recall@{TOP} | {before.mean():.4f} | {after.mean():.4f} "
              f"| hits {before.sum():.0f} and {after.sum():.0f}; difference {found.low:+.4f} to {found.high:+.4f} |",
              flush=True)  # fmt: skip
        if not (kept / "discriminator" / "task.json").is_file():
            train_discriminator(params=judge, out=kept / "discriminator",
                                checkpoints=kept / "discriminator-states", **training)  # fmt: skip
        told = json.loads((kept / "discriminator" / "held_out.json").read_text(encoding="utf-8"))
    by_kind = "; ".join(f"{kind} {found['overall']['auc']:.3f}" for kind, found in told["auc_by_negatives"].items())
    print(f"| discriminator, held-out AUC | {told['auc_untrained']:.3f} | {told['auc']:.3f} "
          f"| {told['auc_low']:.3f} to {told['auc_high']:.3f} after; by negatives: {by_kind} |")  # fmt: skip
    minutes = (time.perf_counter() - started) / 60
    print(f"\n{minutes:.1f} minutes, peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB")


if __name__ == "__main__":
    main()
