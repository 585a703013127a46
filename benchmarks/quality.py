"""What fine-tuning adds: the generator alone and the discriminator, before and after, on one catalogue.

    python benchmarks/quality.py FOLDER [--base-model artifacts/base_model] [--users 300] [--windows 300]

FOLDER holds interactions.csv (user_id, item_id, position) and items.csv (item_id, title). Each user's last item is
the test target, the last but one is left out of training too. The generator ranks the whole catalogue by
constrained beams after the user's last items of train and valid; a hit is the test item among the first ten. The
same users are asked before and after; the interval is of their paired differences. The budget is a fraction of
what a real training takes: the figures say which way fine-tuning goes, not how far.
"""

import argparse
import json
import logging
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml

from llm_i2i.data.long_tail import tag_items
from llm_i2i.llm.beam import TrieOnDevice, beam_search
from llm_i2i.llm.device import resolve_runtime
from llm_i2i.llm.discriminator import train_discriminator
from llm_i2i.llm.generator import train_generator
from llm_i2i.llm.histories import item_indices, sample_keys, user_sequences
from llm_i2i.llm.identifiers import Identifiers
from llm_i2i.llm.lm import TargetLogits, load_for_inference, load_tokenizer
from llm_i2i.llm.prompts import generator_prompt, load_template
from llm_i2i.llm.trie import Catalogue, build_trie, tokenize_catalogue
from llm_i2i.params import Params, RuntimeParams
from llm_i2i.schema import INTERACTIONS

TOP = 10


def leave_two_out(folder: Path, params: Params) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, pd.Series]]:
    """Catalogue tagged on train, training interactions, and the held-out parts as item ids by user."""
    table = pd.read_csv(folder / "interactions.csv", dtype={"user_id": "str", "item_id": "str"})
    table = table.sort_values(["user_id", "position"], kind="stable", ignore_index=True)
    table["timestamp"] = table["position"]
    from_end = table.groupby("user_id").cumcount(ascending=False)
    train = table[from_end > 1].astype(INTERACTIONS)[list(INTERACTIONS)]
    held = {
        name: table[from_end == place].set_index("user_id")["item_id"]
        for name, place in (("valid", 1), ("test", 0))
    }
    items = pd.read_csv(folder / "items.csv", dtype="str", keep_default_na=False)[["item_id", "title"]]
    return tag_items(items, train, params=params.tag, seed=params.seed), train, held


def target_ranks(
    module: TargetLogits,
    catalogue: Catalogue,
    prompts: list[np.ndarray[Any, Any]],
    histories: list[np.ndarray[Any, Any]],
    targets: np.ndarray[Any, Any],
) -> np.ndarray[Any, Any]:
    """1-based place of each user's target among the first `TOP` beams, 0 = not among them."""
    trie = build_trie(catalogue)
    on_device = TrieOnDevice.of(trie, module.lm.device)
    ranks = np.zeros(len(targets), dtype=np.int64)
    order = np.argsort([-len(prompt) for prompt in prompts], kind="stable")
    for start in range(0, len(order), 32):
        rows = order[start : start + 32]
        found = beam_search(
            module,
            [prompts[i] for i in rows],
            trie,
            on_device,
            [np.unique(histories[i]) for i in rows],
            n=TOP,
            num_beams=TOP,
            pad_id=catalogue.end_id,
        )
        hit = found.items == targets[rows, None]
        ranks[rows] = np.where(hit.any(axis=1), hit.argmax(axis=1) + 1, 0)
    return ranks


def paired_interval(before: np.ndarray[Any, Any], after: np.ndarray[Any, Any]) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the mean paired difference."""
    rng = np.random.default_rng(0)
    difference = (after.astype(float) - before)[rng.integers(0, len(after), (4000, len(after)))].mean(axis=1)
    low, high = np.quantile(difference, [0.025, 0.975])
    return float(low), float(high)


def main() -> None:
    """Train both adapters on a budget and print a Markdown table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--base-model", type=Path, default=Path("artifacts/base_model"))
    parser.add_argument("--users", type=int, default=300)
    parser.add_argument("--windows", type=int, default=300)
    parser.add_argument("--histories", type=int, default=200)
    parser.add_argument(
        "--keep", type=Path, help="folder of the adapters: kept there, and used if they are there"
    )
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("llm_i2i").setLevel(logging.INFO)
    params = Params.model_validate(yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8")))
    runtime_params = RuntimeParams(device="auto", precision="auto", threads=options.threads)
    runtime = resolve_runtime(runtime_params)
    items, train, held = leave_two_out(options.folder, params)
    by_user = user_sequences(train, items)
    users = sample_keys([user for user in by_user if user in held["test"].index], options.users, seed=0)
    valid, targets = (item_indices(items, held[name].loc[users]) for name in ("valid", "test"))
    histories = [np.append(by_user[user], item) for user, item in zip(users, valid, strict=True)]
    tokenizer = load_tokenizer(options.base_model)
    catalogue = tokenize_catalogue(items["text"].tolist(), tokenizer)
    generator = params.train_generator.model_copy(update={"max_windows": options.windows})
    judge = params.train_discriminator.model_copy(update={"max_histories": options.histories})
    prompt = generator_prompt(tokenizer, load_template(generator.template, "generator")[0])  # type: ignore[arg-type]
    prompts = [
        np.concatenate([prompt.prefix, catalogue.concat(h[-generator.max_history :])]) for h in histories
    ]

    def ranks(adapter: Path | None) -> np.ndarray[Any, Any]:
        module = TargetLogits(load_for_inference(options.base_model, adapter, runtime))
        return target_ranks(module, catalogue, prompts, histories, targets)

    started = time.perf_counter()
    print(f"{len(items):,} items, {len(users):,} test users, {options.windows} windows, {options.histories} histories, "
          f"{torch.get_num_threads()} threads, {runtime.facts['device']} {runtime.facts['precision']}\n")  # fmt: skip
    print("| what | before | after | note |\n| --- | ---: | ---: | --- |", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        kept = options.keep or Path(scratch)
        shared = {"train": train, "items": items, "identifiers": Identifiers(tuple(items["text"])),
                  "base_model": options.base_model, "runtime": runtime_params,
                  "seed": params.seed}  # fmt: skip
        if not (kept / "generator" / "task.json").is_file():
            train_generator(params=generator, out=kept / "generator",
                            checkpoints=Path(scratch) / "generator-states", **shared)  # fmt: skip
        before, after = ranks(None) > 0, ranks(kept / "generator") > 0
        low, high = paired_interval(before, after)
        print(f"| generator alone, Recall@{TOP} | {before.mean():.4f} | {after.mean():.4f} "
              f"| hits {before.sum()} and {after.sum()}; difference {low:+.4f} to {high:+.4f} |",
              flush=True)  # fmt: skip
        if not (kept / "discriminator" / "task.json").is_file():
            train_discriminator(params=judge, out=kept / "discriminator",
                                checkpoints=Path(scratch) / "discriminator-states", **shared)  # fmt: skip
        told = json.loads((kept / "discriminator" / "held_out.json").read_text(encoding="utf-8"))
    by_kind = "; ".join(
        f"{kind} {found['overall']['auc']:.3f}" for kind, found in told["auc_by_negatives"].items()
    )
    print(f"| discriminator, held-out AUC | {told['auc_untrained']:.3f} | {told['auc']:.3f} "
          f"| {told['auc_low']:.3f} to {told['auc_high']:.3f} after; by negatives: {by_kind} |")  # fmt: skip
    minutes = (time.perf_counter() - started) / 60
    print(
        f"\n{minutes:.1f} minutes, peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB"
    )


if __name__ == "__main__":
    main()
