"""The generator alone as a recommender: what the LLM knows before any item-to-item model."""

import logging
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from llm_i2i.arrays import IntArray
from llm_i2i.catalogue import histories_by_user, item_indices, sample_keys
from llm_i2i.errors import ArtifactError
from llm_i2i.evaluation.evaluate import measured
from llm_i2i.evaluation.protocol import Protocol
from llm_i2i.llm.engine.models import MANIFEST
from llm_i2i.llm.engine.shards import Arrays, Shards, fingerprint
from llm_i2i.llm.prompts import GeneratorPrompt
from llm_i2i.llm.role import LlmSetup, Role, Task, adapter_sha256, generator_role, item_ranker, next_item_prompt
from llm_i2i.measures import target_ranks
from llm_i2i.params import EvaluateGeneratorParams, Params
from llm_i2i.schema import ITEM_ID, USER_ID

log = logging.getLogger(__name__)


def evaluate_generator(
    *,
    history: pd.DataFrame,
    test: pd.DataFrame,
    setup: LlmSetup,
    generator: Path | None,
    params: Params,
    shards: Shards,
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Rank the catalogue for test users by the next item's probability after the user's history.

    The whole catalogue except the user's own history is a candidate, as for an index under the same protocol. The
    generator's query is its prompt, the last `max_history` items with equal weight, and the protocol in the metrics
    says so. Where an item is more than one token, a list is no longer than the beam is wide: cut-offs beyond that
    have no metric.

    Args:
        history: Interactions before the target, schema.INTERACTIONS: train and valid for test targets.
        test: schema.INTERACTIONS, one row per user.
        setup: Items, names, base model, runtime and seed.
        generator: Output folder of stage train_generator, or None for the base model before tuning.
        params: Template and history length of section train_generator; section evaluate_generator; the protocol of
            the I2I models, but for last_m and decay.
        shards: Finished batches, and which of them this process makes.

    Returns:
        Metrics as `evaluate_index` gives them, without the reachable shares, and schema.PER_USER sorted by user_id.
        A target outside the longest list has rank 0.

    Raises:
        ArtifactError: No test user has a history.
        PartDone: This process makes a part only, and has.
    """
    items, asked, protocol = setup.items, params.evaluate_generator, Protocol.from_params(params)
    known = test[test[USER_ID].isin(history[USER_ID])]
    if known.empty:
        raise ArtifactError("test", f"none of {len(test):,} users has a history", "users of train or valid")
    by_user = histories_by_user(history, items)
    users = sample_keys(sorted(known[USER_ID]), asked.max_users, seed=protocol.seed)
    chosen = known[known[USER_ID].isin(users)].sort_values(USER_ID, ignore_index=True)
    targets = item_indices(chosen[ITEM_ID], items, where="test")
    role = generator_role(setup, Task.of(params.train_generator))
    longest = max(protocol.ks) if role.catalogue.single_token else min(max(protocol.ks), asked.num_beams)
    lists = _ranked(role, generator, [by_user[user] for user in chosen[USER_ID]], longest, asked, shards)
    ranks = target_ranks(lists, targets)
    own = protocol.model_copy(update={"last_m": params.train_generator.max_history, "decay": 1.0})
    ks = tuple(k for k in own.ks if k <= longest)
    metrics, per_user = measured(chosen, targets, ranks, lists, items=items, protocol=own, ks=ks)
    metrics = {name: value for name, value in metrics.items() if not name.startswith("reachable_share")}
    k = ks[-1]
    log.info("generator alone: %d users, recall@%d %.4f", len(chosen), k, metrics["overall"][f"recall@{k}"])
    return metrics, per_user


def _ranked(
    role: Role[GeneratorPrompt],
    generator: Path | None,
    histories: list[IntArray],
    longest: int,
    asked: EvaluateGeneratorParams,
    shards: Shards,
) -> IntArray:
    """The next items after each history, best first, int64 (n_histories, longest), -1 where there are fewer."""
    prompts = [next_item_prompt(role, history) for history in histories]
    # Prompts of similar length share a batch: little padding.
    order = np.argsort([-len(p) for p in prompts], kind="stable")
    num_beams, size = max(asked.num_beams, longest), asked.batch_users
    adapter_hash = adapter_sha256(generator) if generator else ""
    work = fingerprint(
        [
            f"{num_beams} {size} {longest} {role.task} {role.device.facts} {role.setup.seed} {adapter_hash}",
            (role.setup.base_model / MANIFEST).read_text(encoding="utf-8"),
            role.catalogue.tokens,
            *(part for i in order for part in (prompts[i], histories[i])),
        ]
    )
    ranker = lru_cache(lambda: item_ranker(role, role.trained(generator)))  # a process that only merges loads no model

    def rank(number: int) -> Arrays:
        rows = order[number * size : (number + 1) * size]
        excluded = [np.unique(histories[i]) for i in rows]
        return {"items": ranker().top([prompts[i] for i in rows], excluded, n=longest, num_beams=num_beams).items}

    found, _ = shards.results(work, -(-len(order) // size), rank)
    lists = np.empty((len(histories), longest), dtype=np.int64)
    lists[order] = np.concatenate([shard["items"] for shard in found])
    return lists
