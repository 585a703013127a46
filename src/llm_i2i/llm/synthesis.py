"""Synthesis: the items each user would take next, constrained to the catalogue (LLM-I2I, section 3.2)."""

import hashlib
import logging
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from llm_i2i.arrays import IntArray
from llm_i2i.catalogue import histories_by_user
from llm_i2i.errors import GenerationError
from llm_i2i.llm.draws import sample_users
from llm_i2i.llm.engine.beam import NextItems
from llm_i2i.llm.engine.models import MANIFEST
from llm_i2i.llm.engine.sampling import Sampling, gumbel_noise, nucleus
from llm_i2i.llm.engine.shards import Arrays, Shards, Wanted, alike, code_sha256, fingerprint
from llm_i2i.llm.prompts import GeneratorPrompt
from llm_i2i.llm.role import LlmSetup, Role, adapter_sha256, generator_role, item_ranker, next_item_prompt, read_task
from llm_i2i.llm.validity import validity
from llm_i2i.params import SynthesizeParams
from llm_i2i.schema import SYNTHETIC, USER_ID

log = logging.getLogger(__name__)


class Moment(NamedTuple):
    """When a user is asked: after all training items, or before the one that is held out."""

    user: str
    held_out: bool


@dataclass(frozen=True)
class UserSearch:
    """A search for the next items of users.

    Attributes:
        histories: Item indices in time order, of each moment asked about.
        excluded: Item indices that may not come out, sorted.
        params: Section synthesize.
    """

    histories: dict[Moment, IntArray]
    excluded: dict[Moment, IntArray]
    params: SynthesizeParams

    def batch(self, moments: list[Moment], prompts: list[IntArray], ranker: NextItems, seed: int) -> Arrays:
        """Items (int64) and logprobs (float32), both (n_moments, items_per_user), -1 and -inf at the end.

        Raises:
            GenerationError: An item came out that its moment excludes.
        """
        params, excluded = self.params, [self.excluded[moment] for moment in moments]
        sampling, size = None, params.items_per_user
        if params.decoding == "sample":
            drawn = gumbel_noise([moment.user for moment in moments], len(ranker.trie.n_leaves), seed=seed)
            noise = torch.from_numpy(drawn).to(ranker.device)
            sampling, size = Sampling(params.temperature, noise), params.num_beams
        found = ranker.top(prompts, excluded, n=size, num_beams=params.num_beams, sampling=sampling)
        keep = nucleus(found.log_q, params.top_p) if sampling else found.items >= 0
        # Kept items to the front, in their order.
        order = np.argsort(~keep, axis=1, kind="stable")[:, : params.items_per_user]
        kept = np.take_along_axis(keep, order, axis=1)
        items = np.where(kept, np.take_along_axis(found.items, order, axis=1), -1)
        for moment, row, closed in zip(moments, items, excluded, strict=True):
            if np.isin(row, closed).any():
                raise GenerationError(f"user {moment.user}", "an item of the history came out", "the others only")
        logprobs = np.where(kept, np.take_along_axis(found.logprobs, order, axis=1), -np.inf)
        return {"items": items, "logprobs": logprobs.astype(np.float32)}


def search_next_items(
    wanted: UserSearch, *, setup: LlmSetup, adapter: Path, shards: Shards
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Let the generator name the next items of users.

    Args:
        wanted: Whose, how many and how.
        setup: Items, names, base model, runtime and seed.
        adapter: Output folder of stage train_generator.
        shards: Finished batches, and which of them this process makes.

    Returns:
        Rows (schema.SYNTHETIC), sorted by (held_out, user_id, rank); runtime facts.
    """
    task = read_task(adapter)
    role = generator_role(setup, task)
    prompts = {moment: next_item_prompt(role, history) for moment, history in wanted.histories.items()}
    # Prompts of similar length share a batch: little padding.
    moments = sorted(prompts, key=lambda m: (-len(prompts[m]), m))
    started = time.perf_counter()
    found, before = _found(wanted, [(m, prompts[m]) for m in moments], role, adapter, shards)
    seconds = time.perf_counter() - started
    facts: dict[str, Any] = {**before, **role.device.usage}
    if not any(before.values()):
        facts["users_per_s"] = round(len(moments) / seconds, 2)
    items, logprobs = found["items"], found["logprobs"]
    row, column = np.nonzero(items >= 0)
    hashes = [hashlib.sha256(prompts[m].tobytes()).hexdigest() for m in moments]
    table = pd.DataFrame(
        {
            "user_id": pd.array([moment.user for moment in moments], dtype="str").take(row),
            "item_id": setup.items["item_id"].array.take(items[row, column]),
            "rank": column + 1,
            "logprob": logprobs[row, column],
            "held_out": np.array([moment.held_out for moment in moments])[row],
            "prompt_sha256": pd.array(hashes, dtype="str").take(row),
            "template_sha256": task.template_sha256,
            "adapter_sha256": adapter_sha256(adapter),
        }
    ).astype(SYNTHETIC)
    log.info("%d rows for %d prompts in %.1f s", len(table), len(moments), seconds)
    return table.sort_values(["held_out", "user_id", "rank"], ignore_index=True), facts


def _found(
    wanted: UserSearch, asked: list[tuple[Moment, IntArray]], role: Role[GeneratorPrompt], adapter: Path, shards: Shards
) -> tuple[Arrays, dict[str, int]]:
    """What `UserSearch.batch` gives for each moment and its prompt; what of it was there before."""
    seed, size = role.setup.seed, wanted.params.batch_users
    settings: list[str | IntArray] = [
        f"{wanted.params.model_dump_json()} {role.device.facts} {seed} {adapter_sha256(adapter)}",
        (role.setup.base_model / MANIFEST).read_text(encoding="utf-8"),
        role.catalogue.tokens,
    ]
    parts = [(str(moment), prompt, wanted.excluded[moment]) for moment, prompt in asked]
    ranker = lru_cache(lambda: item_ranker(role, role.trained(adapter)))  # a process that only merges loads no model
    is_fixed = role.catalogue.single_token and wanted.params.decoding == "beam"  # a beam is as wide as its batch needs

    def keys() -> list[str]:
        common = fingerprint([code_sha256(), *settings])
        return [fingerprint([common, *part]) for part in parts]

    def batches(places: IntArray) -> list[IntArray]:
        if not shards.kept:
            return [places[start : start + size] for start in range(0, len(places), size)]
        return alike(places, [(len(prompt),) for _, prompt in asked], lambda _: size if is_fixed else 1)

    def search(places: IntArray) -> Arrays:
        batch = [asked[place] for place in places]
        whole = batch + batch[:1] * (size - len(batch)) if shards.kept and is_fixed else batch
        found = wanted.batch([moment for moment, _ in whole], [prompt for _, prompt in whole], ranker(), seed)
        return {name: values[: len(batch)] for name, values in found.items()}

    work = fingerprint([*settings, str(shards.kept), *(piece for part in parts for piece in part)])
    return shards.of_each(work, Wanted(keys, np.ones(len(asked), dtype=np.int64), batches), search)


def synthesize(
    *,
    train: pd.DataFrame,
    held_out: pd.DataFrame,
    setup: LlmSetup,
    adapter: Path,
    params: SynthesizeParams,
    shards: Shards,
) -> tuple[pd.DataFrame, dict[str, Any], dict[str, Any]]:
    """Generate the items each user would take next, after the last training items; and before those held out.

    Args:
        train: Training interactions (schema.INTERACTIONS), the only source of prompts and exclusions.
        held_out: Rows of `train` that the generator was not trained on (schema.HELD_OUT).
        setup: Items, names, base model, runtime and seed; the seed samples users, and items where they are drawn.
        adapter: Output folder of stage train_generator.
        params: Section synthesize.
        shards: Finished batches, and which of them this process makes.

    Returns:
        Rows (schema.SYNTHETIC); statistics for the report; runtime facts.

    Raises:
        GenerationError: No item can be generated for any user, or none was.
        TrainingError: The generator's probabilities are no numbers.
        PartDone: This process makes a part only, and has.
    """
    items = setup.items
    histories = histories_by_user(train, items)
    closed = np.empty(0, dtype=np.int64)
    if params.long_tail_only:
        closed = np.flatnonzero(~items["is_long_tail"].to_numpy())
    open_users = [user for user, taken in histories.items() if len(np.union1d(taken, closed)) < len(items)]
    if not open_users:
        found = "no user has an item left to generate"
        raise GenerationError("synthesize", found, "items outside users' histories")
    users = sample_users(open_users, params.max_users, seed=setup.seed, apart=shards.kept is not None)
    asked = {Moment(user, held_out=False): histories[user] for user in users}
    asked |= {Moment(user, held_out=True): histories[user][:-1] for user in held_out[USER_ID]}
    excluded = {moment: np.union1d(history, closed) for moment, history in asked.items()}
    wanted = UserSearch(asked, excluded, params)
    table, facts = search_next_items(wanted, setup=setup, adapter=adapter, shards=shards)
    proposed = table[~table["held_out"]]
    if proposed.empty:
        found = f"the generator named no item for any of {len(users):,} users"
        raise GenerationError("synthesize", found, "at least one row", "look at train_generator's loss in training.csv")
    stats = validity(proposed, items, train, n_users=len(users), items_per_user=params.items_per_user)
    return table, stats, facts
