"""Scoring: p_yes of synthetic and real interactions (LLM-I2I, section 3.3)."""

import json
import logging
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from llm_i2i.arrays import FloatArray, IntArray
from llm_i2i.catalogue import histories_by_user, item_indices
from llm_i2i.llm.calibration import p_yes
from llm_i2i.llm.engine.batches import Sequence
from llm_i2i.llm.engine.device import peak_memory_mb, resolve_runtime
from llm_i2i.llm.engine.models import MANIFEST, TargetLogits, context_length, load_for_inference
from llm_i2i.llm.engine.shards import Shards, fingerprint
from llm_i2i.llm.histories import sample_keys
from llm_i2i.llm.identifiers import Identifiers, load_vocabulary
from llm_i2i.llm.prompts import discriminator_prompt, load_template
from llm_i2i.llm.questions import HELD_OUT_FILE, questions, read_margins
from llm_i2i.llm.task import adapter_sha256, read_task
from llm_i2i.params import RuntimeParams, ScoreParams
from llm_i2i.schema import SCORED, SOURCE_REAL, SOURCE_SYNTHETIC

log = logging.getLogger(__name__)
SHARD_SEQUENCES = 64  # histories with their candidates a shard: what a killed run loses at most


def score(
    *,
    train: pd.DataFrame,
    synthetic: pd.DataFrame,
    items: pd.DataFrame,
    identifiers: Identifiers,
    base_model: Path,
    adapter: Path,
    params: ScoreParams,
    runtime: RuntimeParams,
    seed: int,
    checkpoints: Path,
    source: str = SOURCE_SYNTHETIC,
) -> tuple[pd.DataFrame, dict[str, Any], dict[str, Any]]:
    """p_yes of every proposed row and, beside the generator's, of real training rows.

    A synthetic item is asked about after the user's last training items. Real items are asked about in runs of
    neighbours, after the items before the run (and, where those are too few, those after it): never after
    themselves.

    Args:
        train: Training interactions (schema.INTERACTIONS).
        synthetic: schema.SYNTHETIC.
        items: Catalogue (schema.ITEMS).
        identifiers: The items' names.
        base_model: Output folder of stage base_model.
        adapter: Output folder of stage train_discriminator.
        params: Section score.
        runtime: Section runtime.
        seed: Samples the real rows.
        checkpoints: Folder of finished shards: a killed run goes on after them. The caller deletes it once the
            outputs are in place.
        source: Who proposed the rows: `synthetic` (the generator) or the name of a control. Real rows are asked about
            with the generator's only, once for all sources.

    Returns:
        Rows (schema.SCORED, and `rank`: the synthetic rank, 0 for real rows); calibration facts; runtime facts.
    """
    device = resolve_runtime(runtime)
    task = read_task(adapter)
    template, _ = load_template(task["template"], "discriminator")
    vocabulary = load_vocabulary(base_model, identifiers, items, seed=seed)
    prompt = discriminator_prompt(vocabulary.tokenizer, template)  # type: ignore[arg-type]  # load_template checked the task
    catalogue = vocabulary.catalogue
    by_user = histories_by_user(train, items)
    held_out = json.loads((adapter / HELD_OUT_FILE).read_text(encoding="utf-8"))
    with_real = source == SOURCE_SYNTHETIC
    asked = pd.DataFrame(
        [
            *_synthetic_questions(synthetic, source, items, by_user, task["max_history"]),
            *(_real_questions(by_user, task["max_history"], params, seed) if with_real else ()),
        ],
        columns=["user_id", "source", "history", "candidates", "ranks"],
    )
    context = context_length(base_model)
    sequences = [
        questions(h, c, np.zeros(len(c), dtype=np.int64), prompt, catalogue, context=context)
        for h, c in zip(asked["history"], asked["candidates"], strict=True)
    ]
    module = TargetLogits(load_for_inference(base_model, adapter, device, new_tokens=vocabulary.new_tokens))
    work = fingerprint(
        [
            params.model_dump_json(),
            str(device.facts),
            adapter_sha256(adapter),
            (base_model / MANIFEST).read_text(encoding="utf-8"),
            *(part for sequence in sequences for part in (sequence.ids, sequence.positions)),
        ]
    )
    shards = Shards(checkpoints, work)
    started = time.perf_counter()

    def read(chosen: list[Sequence]) -> list[FloatArray]:
        return read_margins(
            module,
            chosen,
            (prompt.no_id, prompt.yes_id),
            batch_tokens=params.batch_tokens,
            runtime=device,
            pad_id=catalogue.end_id,
        )

    margins = _in_shards(sequences, shards, read)
    seconds = time.perf_counter() - started
    table = asked[["user_id", "source", "candidates", "ranks"]].assign(
        margin=pd.Series(margins, dtype=object)
    )
    table = table.explode(["candidates", "ranks", "margin"], ignore_index=True)
    table["p_yes"] = p_yes(table["margin"].to_numpy(dtype=np.float64), held_out["temperature"])
    table["item_id"] = items["item_id"].to_numpy(dtype=object)[table["candidates"].to_numpy(dtype=np.int64)]
    table = table.rename(columns={"ranks": "rank"})[[*SCORED, "rank"]].astype({**SCORED, "rank": "int32"})
    table = table.sort_values(["user_id", "source", "item_id"], ignore_index=True)
    calibration = {k: v for k, v in held_out.items() if k not in ("reliability", "auc_by_negatives")}
    calibration["template"], calibration["template_sha256"] = task["template"], task["template_sha256"]
    calibration["n_real"] = int((table["source"] == SOURCE_REAL).sum())
    calibration["n_synthetic"] = int((table["source"] == source).sum())
    facts: dict[str, Any] = {"resumed_shards": shards.found, **device.facts, **peak_memory_mb(device)}
    if not shards.found:
        facts["pairs_per_s"] = round(len(table) / seconds, 1)
    log.info("score: %d pairs in %.1f s", len(table), seconds)
    return table, calibration, facts


def _in_shards(
    sequences: list[Sequence], shards: Shards, read: Callable[[list[Sequence]], list[FloatArray]]
) -> list[FloatArray]:
    """Read margins shard by shard, finished ones from disk; longest sequences first, so that batches pad little."""
    order = np.argsort([-len(s) for s in sequences], kind="stable")
    margins: list[FloatArray] = [np.empty(0)] * len(sequences)
    for number, start in enumerate(range(0, len(order), SHARD_SEQUENCES)):
        chosen = order[start : start + SHARD_SEQUENCES]
        found = shards.load(number)
        if found is None:
            found = {"margins": np.concatenate(read([sequences[i] for i in chosen]))}
            shards.save(number, found)
        ends = np.cumsum([len(sequences[i].positions) for i in chosen])
        for i, part in zip(chosen, np.split(found["margins"], ends[:-1]), strict=True):
            margins[i] = part
    return margins


_Asked = tuple[str, str, IntArray, IntArray, IntArray]


def _synthetic_questions(
    synthetic: pd.DataFrame, source: str, items: pd.DataFrame, by_user: dict[str, IntArray], max_history: int
) -> Iterable[_Asked]:
    indices = item_indices(synthetic["item_id"], items, where="synthetic.parquet")
    ranks = synthetic["rank"].to_numpy(dtype=np.int64)
    for user, rows in synthetic.groupby("user_id", sort=True).indices.items():
        yield str(user), source, by_user[str(user)][-max_history:], indices[rows], ranks[rows]


def _real_questions(
    by_user: dict[str, IntArray], max_history: int, params: ScoreParams, seed: int
) -> Iterable[_Asked]:
    """Runs of neighbouring real items with the context around them; a budget takes one random run a user."""
    rng = np.random.default_rng(seed)
    users = [user for user, items in by_user.items() if len(items) >= 2]
    for user in sample_keys(users, params.max_real_users, seed=seed):
        items = by_user[user]
        # A run leaves at least one item of context and shares one encoding among at most max_history items.
        size = min(params.real_rows_per_user or max_history, max_history, len(items) - 1)
        starts: Iterable[int] = range(0, len(items), size)
        if params.real_rows_per_user:
            starts = [int(rng.integers(0, len(items) - size + 1))]
        for start in starts:
            run = items[start : start + size]
            before, after = items[:start][-max_history:], items[start + len(run) :]
            history = np.concatenate([before, after[: max_history - len(before)]])
            yield user, SOURCE_REAL, history, run, np.zeros(len(run), dtype=np.int64)
