"""The generator alone as a recommender: what the LLM knows before any item-to-item model."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from llm_i2i.arrays import IntArray
from llm_i2i.catalogue import histories_by_user, item_indices, sample_keys
from llm_i2i.errors import ArtifactError
from llm_i2i.evaluation.evaluate import measured
from llm_i2i.evaluation.protocol import Protocol
from llm_i2i.llm.prompts import GeneratorPrompt
from llm_i2i.llm.role import LlmSetup, Role, Task, generator_role, item_ranker, next_item_prompt
from llm_i2i.measures import target_ranks
from llm_i2i.params import EvaluateGeneratorParams, TrainGeneratorParams
from llm_i2i.schema import ITEM_ID, USER_ID

log = logging.getLogger(__name__)


def evaluate_generator(
    *,
    history: pd.DataFrame,
    test: pd.DataFrame,
    setup: LlmSetup,
    generator: Path | None,
    params: TrainGeneratorParams,
    asked: EvaluateGeneratorParams,
    protocol: Protocol,
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
        params: Section train_generator: template and history length.
        asked: Section evaluate_generator; users are sampled by the protocol's seed.
        protocol: Of the I2I models; last_m and decay are replaced.

    Returns:
        Metrics as `evaluate_index` gives them, without the reachable shares, and schema.PER_USER sorted by user_id.
        A target outside the longest list has rank 0.

    Raises:
        ArtifactError: No test user has a history.
    """
    items = setup.items
    known = test[test[USER_ID].isin(history[USER_ID])]
    if known.empty:
        raise ArtifactError("test", f"none of {len(test):,} users has a history", "users of train or valid")
    by_user = histories_by_user(history, items)
    users = sample_keys(sorted(known[USER_ID]), asked.max_users, seed=protocol.seed)
    chosen = known[known[USER_ID].isin(users)].sort_values(USER_ID, ignore_index=True)
    targets = item_indices(chosen[ITEM_ID], items, where="test")
    role = generator_role(setup, Task.of(params))
    longest = max(protocol.ks) if role.catalogue.single_token else min(max(protocol.ks), asked.num_beams)
    lists = _ranked(role, generator, [by_user[user] for user in chosen[USER_ID]], asked, longest)
    ranks = target_ranks(lists, targets)
    own = protocol.model_copy(update={"last_m": params.max_history, "decay": 1.0})
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
    asked: EvaluateGeneratorParams,
    longest: int,
) -> IntArray:
    """The next items after each history, best first, int64 (n_histories, longest), -1 where there are fewer."""
    ranker = item_ranker(role, role.trained(generator))
    prompts = [next_item_prompt(role, history) for history in histories]
    lists = np.full((len(histories), longest), -1, dtype=np.int64)
    # Prompts of similar length share a batch: little padding.
    order = np.argsort([-len(p) for p in prompts], kind="stable")
    num_beams = max(asked.num_beams, longest)
    for start in tqdm(range(0, len(order), asked.batch_users), unit="batch", disable=None, desc="evaluate"):
        rows = order[start : start + asked.batch_users]
        excluded = [np.unique(histories[i]) for i in rows]
        lists[rows] = ranker.top([prompts[i] for i in rows], excluded, n=longest, num_beams=num_beams).items
    return lists
