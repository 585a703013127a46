"""Synthesis: the items each user would take next, constrained to the catalogue (LLM-I2I, section 3.2)."""

import hashlib
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from llm_i2i.arrays import IntArray
from llm_i2i.catalogue import histories_by_user
from llm_i2i.errors import GenerationError
from llm_i2i.llm.engine.device import peak_memory_mb, resolve_runtime
from llm_i2i.llm.engine.models import MANIFEST, TargetLogits, context_length, load_for_inference
from llm_i2i.llm.engine.next_items import NextItems
from llm_i2i.llm.engine.sampling import Sampling, gumbel_noise, nucleus
from llm_i2i.llm.engine.shards import Arrays, Shards, fingerprint
from llm_i2i.llm.histories import next_item_prompt, sample_keys
from llm_i2i.llm.identifiers import Identifiers, load_vocabulary
from llm_i2i.llm.prompts import generator_prompt, load_template
from llm_i2i.llm.task import adapter_sha256, read_task
from llm_i2i.llm.validity import validity
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
    checkpoints: Path,
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
        seed: Samples users, and items where they are drawn.
        checkpoints: Folder of finished batches: a killed run goes on after them. The caller deletes it once the
            outputs are in place.

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
    histories = histories_by_user(train, items)
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
    limits = {"max_history": task["max_history"], "context": context_length(base_model)}
    prompts = {u: next_item_prompt(histories[u], prompt, catalogue, **limits) for u in users}
    # Users with prompts of similar length share a batch: little padding.
    users = sorted(users, key=lambda u: (-len(prompts[u]), u))
    module = TargetLogits(load_for_inference(base_model, adapter, device, new_tokens=vocabulary.new_tokens))
    searcher = _Searcher(NextItems(module, catalogue, device.device, softmax=task["softmax"]), params, seed)
    adapter_hash = adapter_sha256(adapter)
    work = fingerprint(
        [
            params.model_dump_json(),
            str(device.facts),
            f"{seed} {adapter_hash}",
            (base_model / MANIFEST).read_text(encoding="utf-8"),
            catalogue.tokens,
            *(part for u in users for part in (u, prompts[u], excluded[u])),
        ]
    )
    shards = Shards(checkpoints, work)
    started = time.perf_counter()
    frames = []
    item_ids = items["item_id"].to_numpy(dtype=object)
    for number, start in enumerate(
        tqdm(range(0, len(users), params.batch_users), unit="batch", disable=None, desc="synthesize")
    ):
        batch = users[start : start + params.batch_users]
        found = shards.load(number)
        if found is None:
            found = searcher.search(batch, [prompts[u] for u in batch], [excluded[u] for u in batch])
            shards.save(number, found)
        row, column = np.nonzero(found["items"] >= 0)
        hashes = np.array([hashlib.sha256(prompts[u].tobytes()).hexdigest() for u in batch], dtype=object)
        frames.append(
            pd.DataFrame(
                {
                    "user_id": np.array(batch, dtype=object)[row],
                    "item_id": item_ids[found["items"][row, column]],
                    "rank": column + 1,
                    "logprob": found["logprobs"][row, column],
                    "prompt_sha256": hashes[row],
                    "template_sha256": task["template_sha256"],
                    "adapter_sha256": adapter_hash,
                }
            )
        )
    seconds = time.perf_counter() - started
    table = pd.concat(frames, ignore_index=True).astype(SYNTHETIC)
    table = table.sort_values(["user_id", "rank"], ignore_index=True)
    stats = validity(table, items, train, n_users=len(users), items_per_user=params.items_per_user)
    facts: dict[str, Any] = {"resumed_shards": shards.found, **device.facts, **peak_memory_mb(device)}
    if not shards.found:
        facts["users_per_s"] = round(len(users) / seconds, 2)
    log.info("synthesize: %d rows for %d users in %.1f s", len(table), len(users), seconds)
    return table, stats, facts


@dataclass(frozen=True)
class _Searcher:
    """The search of the run's parameters, over batches of users."""

    next_items: NextItems
    params: SynthesizeParams
    seed: int

    def search(self, users: list[str], prompts: list[IntArray], excluded: list[IntArray]) -> Arrays:
        """Items (int64) and logprobs (float32) of each user, both (n_users, items_per_user), -1 and -inf at the end.

        Raises:
            GenerationError: An item came out that its user excludes.
        """
        params, sampling = self.params, None
        size = params.items_per_user
        if params.decoding == "sample":
            noise = gumbel_noise(users, self.next_items.n_nodes, seed=self.seed)
            sampling = Sampling(params.temperature, torch.from_numpy(noise).to(self.next_items.device))
            size = params.num_beams
        found = self.next_items.top(prompts, excluded, n=size, num_beams=params.num_beams, sampling=sampling)
        keep = nucleus(found.log_q, params.top_p) if sampling else found.items >= 0
        # Kept ones to the front, in their order.
        order = np.argsort(~keep, axis=1, kind="stable")[:, : params.items_per_user]
        kept = np.take_along_axis(keep, order, axis=1)
        items = np.where(kept, np.take_along_axis(found.items, order, axis=1), -1)
        for user, row, closed in zip(users, items, excluded, strict=True):
            if np.isin(row, closed).any():
                raise GenerationError(f"user {user}", "an item of the history came out", "the others only")
        logprobs = np.where(kept, np.take_along_axis(found.logprobs, order, axis=1), -np.inf)
        return {"items": items, "logprobs": logprobs.astype(np.float32)}
