"""Synthesis: the items each user would take next, constrained to the catalogue (LLM-I2I, section 3.2)."""

import hashlib
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from llm_i2i.arrays import IntArray
from llm_i2i.catalogue import histories_by_user, sample_keys
from llm_i2i.errors import GenerationError
from llm_i2i.llm.engine.models import MANIFEST
from llm_i2i.llm.engine.next_items import NextItems
from llm_i2i.llm.engine.sampling import Sampling, gumbel_noise, nucleus
from llm_i2i.llm.engine.shards import Arrays, Shards, fingerprint
from llm_i2i.llm.role import (
    LlmSetup,
    adapter_sha256,
    generator_role,
    item_ranker,
    next_item_prompt,
    read_task,
)
from llm_i2i.llm.validity import validity
from llm_i2i.params import BeamSearchParams, SynthesizeParams
from llm_i2i.schema import SYNTHETIC

log = logging.getLogger(__name__)


class Drawing(NamedTuple):
    """How items are drawn instead of searched: at a temperature, from the nucleus of mass `top_p`."""

    temperature: float
    top_p: float


@dataclass(frozen=True)
class UserSearch:
    """A search for the next items of users.

    Attributes:
        histories: Item indices in time order, of each user asked about.
        excluded: Item indices that a user may not get, sorted.
        beams: How many items, how wide, and how many users at a time.
        drawing: None = the most probable items.
    """

    histories: dict[str, IntArray]
    excluded: dict[str, IntArray]
    beams: BeamSearchParams
    drawing: Drawing | None = None

    def batch(self, users: list[str], prompts: list[IntArray], ranker: NextItems, seed: int) -> Arrays:
        """Items (int64) and logprobs (float32) of users, both (n_users, items_per_user), -1 and -inf at the end.

        Raises:
            GenerationError: An item came out that its user excludes.
        """
        sampling, size = None, self.beams.items_per_user
        excluded = [self.excluded[u] for u in users]
        if self.drawing:
            noise = torch.from_numpy(gumbel_noise(users, ranker.n_nodes, seed=seed)).to(ranker.device)
            sampling, size = Sampling(self.drawing.temperature, noise), self.beams.num_beams
        found = ranker.top(prompts, excluded, n=size, num_beams=self.beams.num_beams, sampling=sampling)
        keep = nucleus(found.log_q, self.drawing.top_p) if self.drawing else found.items >= 0
        # Kept items to the front, in their order.
        order = np.argsort(~keep, axis=1, kind="stable")[:, : self.beams.items_per_user]
        kept = np.take_along_axis(keep, order, axis=1)
        items = np.where(kept, np.take_along_axis(found.items, order, axis=1), -1)
        for user, row, closed in zip(users, items, excluded, strict=True):
            if np.isin(row, closed).any():
                raise GenerationError(f"user {user}", "an item of the history came out", "the others only")
        logprobs = np.where(kept, np.take_along_axis(found.logprobs, order, axis=1), -np.inf)
        return {"items": items, "logprobs": logprobs.astype(np.float32)}


def search_next_items(
    wanted: UserSearch, *, setup: LlmSetup, adapter: Path, checkpoints: Path
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Let the generator name the next items of users.

    Args:
        wanted: Whose, how many and how.
        setup: Items, names, base model, runtime and seed.
        adapter: Output folder of stage train_generator.
        checkpoints: Folder of finished batches: a killed run continues after them.

    Returns:
        Rows (schema.SYNTHETIC), sorted by (user_id, rank); runtime facts.
    """
    task = read_task(adapter)
    role = generator_role(setup, task)
    prompts = {user: next_item_prompt(role, history) for user, history in wanted.histories.items()}
    # Users with prompts of similar length share a batch: little padding.
    users = sorted(prompts, key=lambda u: (-len(prompts[u]), u))
    ranker = item_ranker(role, role.trained(adapter))
    adapter_hash = adapter_sha256(adapter)
    work = fingerprint(
        [
            f"{wanted.beams.model_dump_json()} {wanted.drawing} {role.device.facts} {setup.seed} {adapter_hash}",
            (setup.base_model / MANIFEST).read_text(encoding="utf-8"),
            role.catalogue.tokens,
            *(part for u in users for part in (u, prompts[u], wanted.excluded[u])),
        ]
    )
    shards = Shards(checkpoints, work)
    started = time.perf_counter()
    frames = []
    item_ids, size = setup.items["item_id"].to_numpy(dtype=object), wanted.beams.batch_users
    starts = range(0, len(users), size)
    for number, start in enumerate(tqdm(starts, unit="batch", disable=None, desc="synthesize")):
        batch = users[start : start + size]
        found = shards.load(number)
        if found is None:
            found = wanted.batch(batch, [prompts[u] for u in batch], ranker, setup.seed)
            shards.save(number, found)
        row, column = np.nonzero(found["items"] >= 0)
        hashes = np.array([hashlib.sha256(prompts[u].tobytes()).hexdigest() for u in batch], dtype=object)
        rows = {
            "user_id": np.array(batch, dtype=object)[row],
            "item_id": item_ids[found["items"][row, column]],
            "rank": column + 1,
            "logprob": found["logprobs"][row, column],
            "prompt_sha256": hashes[row],
            "template_sha256": task.template_sha256,
            "adapter_sha256": adapter_hash,
        }
        frames.append(pd.DataFrame(rows))
    seconds = time.perf_counter() - started
    table = pd.concat(frames, ignore_index=True).astype(SYNTHETIC)
    facts: dict[str, Any] = {"resumed_shards": shards.found, **role.device.usage}
    if not shards.found:
        facts["users_per_s"] = round(len(users) / seconds, 2)
    log.info("%d rows for %d users in %.1f s", len(table), len(users), seconds)
    return table.sort_values(["user_id", "rank"], ignore_index=True), facts


def synthesize(
    *, train: pd.DataFrame, setup: LlmSetup, adapter: Path, params: SynthesizeParams, checkpoints: Path
) -> tuple[pd.DataFrame, dict[str, Any], dict[str, Any]]:
    """Generate the items each user would take next, after the last training items.

    Args:
        train: Training interactions (schema.INTERACTIONS), the only source of prompts and exclusions.
        setup: Items, names, base model, runtime and seed; the seed samples users, and items where they are drawn.
        adapter: Output folder of stage train_generator.
        params: Section synthesize.
        checkpoints: Folder of finished batches: a killed run continues after them. The caller deletes it once the
            outputs are in place.

    Returns:
        Rows (schema.SYNTHETIC); statistics for the report; runtime facts.

    Raises:
        GenerationError: No item can be generated for any user.
    """
    items = setup.items
    histories = histories_by_user(train, items)
    closed = np.empty(0, dtype=np.int64)
    if params.long_tail_only:
        closed = np.flatnonzero(~items["is_long_tail"].to_numpy())
    excluded = {user: np.union1d(history, closed) for user, history in histories.items()}
    open_users = [user for user in histories if len(excluded[user]) < len(items)]
    if not open_users:
        found = "no user has an item left to generate"
        raise GenerationError("synthesize", found, "items outside users' histories")
    users = sample_keys(open_users, params.max_users, seed=setup.seed)
    drawing = Drawing(params.temperature, params.top_p) if params.decoding == "sample" else None
    wanted = UserSearch({user: histories[user] for user in users}, excluded, params, drawing)
    table, facts = search_next_items(wanted, setup=setup, adapter=adapter, checkpoints=checkpoints)
    stats = validity(table, items, train, n_users=len(users), items_per_user=params.items_per_user)
    return table, stats, facts
