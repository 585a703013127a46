"""Synthesis: the items each user would take next, constrained to the catalogue (LLM-I2I, section 3.2)."""

import hashlib
import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from llm_i2i.errors import GenerationError
from llm_i2i.llm.beam import TrieOnDevice, beam_search
from llm_i2i.llm.device import peak_memory_mb, resolve_runtime
from llm_i2i.llm.histories import sample_keys, user_sequences
from llm_i2i.llm.identifiers import Identifiers, load_vocabulary
from llm_i2i.llm.lm import TargetLogits, load_for_inference
from llm_i2i.llm.prompts import generator_prompt, load_template
from llm_i2i.llm.task import adapter_sha256, read_task
from llm_i2i.llm.trie import build_trie
from llm_i2i.params import RuntimeParams, SynthesizeParams
from llm_i2i.schema import SYNTHETIC

log = logging.getLogger(__name__)


def synthesize(
    *,
    train: pd.DataFrame,
    items: pd.DataFrame,
    identifiers: Identifiers,
    base_model: Path,
    adapter: Path,
    params: SynthesizeParams,
    runtime: RuntimeParams,
    seed: int,
) -> tuple[pd.DataFrame, dict[str, Any], dict[str, Any]]:
    """Generate the items each user would take next, after the last training items.

    Args:
        train: Training interactions (schema.INTERACTIONS): prompts and exclusions come from nothing else.
        items: Catalogue (schema.ITEMS).
        identifiers: The items' names.
        base_model: Output folder of stage base_model.
        adapter: Output folder of stage train_generator.
        params: Section synthesize.
        runtime: Section runtime.
        seed: Samples users.

    Returns:
        Rows (schema.SYNTHETIC); statistics for the report; runtime facts.

    Raises:
        GenerationError: No item can be generated for any user.
    """
    device = resolve_runtime(runtime)
    task = read_task(adapter)
    template, _ = load_template(task["template"], "generator")
    vocabulary = load_vocabulary(base_model, identifiers, items, seed=seed)
    prompt = generator_prompt(vocabulary.tokenizer, template)  # type: ignore[arg-type]  # load_template checked the task
    catalogue = vocabulary.catalogue
    trie = build_trie(catalogue)
    histories = user_sequences(train, items)
    closed = np.empty(0, dtype=np.int64)
    if params.long_tail_only:
        closed = np.flatnonzero(~items["is_long_tail"].to_numpy())
    excluded = {user: np.union1d(history, closed) for user, history in histories.items()}
    open_users = [user for user in histories if len(excluded[user]) < len(items)]
    if not open_users:
        raise GenerationError(
            "synthesize", "no user has an item left to generate", "items outside users' histories"
        )
    users = sample_keys(open_users, params.max_users, seed=seed)
    prompts = {
        u: np.concatenate([prompt.prefix, catalogue.concat(histories[u][-task["max_history"] :])])
        for u in users
    }
    # Users with prompts of similar length share a batch: little padding.
    users = sorted(users, key=lambda u: (-len(prompts[u]), u))
    module = TargetLogits(load_for_inference(base_model, adapter, device, new_tokens=vocabulary.new_tokens))
    on_device = TrieOnDevice.of(trie, device.device)
    started = time.perf_counter()
    frames = []
    item_ids = items["item_id"].to_numpy(dtype=object)
    adapter_hash = adapter_sha256(adapter)
    for start in tqdm(
        range(0, len(users), params.batch_users), unit="batch", disable=None, desc="synthesize"
    ):
        batch = users[start : start + params.batch_users]
        generated = beam_search(
            module,
            [prompts[u] for u in batch],
            trie,
            on_device,
            [excluded[u] for u in batch],
            n=params.items_per_user,
            num_beams=params.num_beams,
            pad_id=catalogue.end_id,
        )
        row, column = np.nonzero(generated.items >= 0)
        hashes = np.array([hashlib.sha256(prompts[u].tobytes()).hexdigest() for u in batch], dtype=object)
        frames.append(
            pd.DataFrame(
                {
                    "user_id": np.array(batch, dtype=object)[row],
                    "item_id": item_ids[generated.items[row, column]],
                    "rank": column + 1,
                    "logprob": generated.logprobs[row, column],
                    "prompt_sha256": hashes[row],
                    "template_sha256": task["template_sha256"],
                    "adapter_sha256": adapter_hash,
                }
            )
        )
    seconds = time.perf_counter() - started
    table = pd.concat(frames, ignore_index=True).astype(SYNTHETIC)
    table = table.sort_values(["user_id", "rank"], ignore_index=True)
    stats = _statistics(table, items, n_users=len(users), requested=len(users) * params.items_per_user)
    facts = {"users_per_s": round(len(users) / seconds, 2), **device.facts, **peak_memory_mb(device)}
    log.info("synthesize: %d rows for %d users, %.1f users/s", len(table), len(users), facts["users_per_s"])
    return table, stats, facts


def _statistics(table: pd.DataFrame, items: pd.DataFrame, *, n_users: int, requested: int) -> dict[str, Any]:
    """Counts of the synthesized rows: how many, how varied, how far into the tail."""
    merged = table.merge(
        items[["item_id", "bucket", "is_long_tail"]], on="item_id", how="left", validate="m:1"
    )
    return {
        "users": n_users,
        "rows": len(table),
        "rows_requested": requested,
        "distinct_items": int(table["item_id"].nunique()),
        "share_long_tail": round(float(merged["is_long_tail"].mean()), 6),
        "by_bucket": {str(k): int(v) for k, v in merged["bucket"].value_counts().sort_index().items()},
    }
