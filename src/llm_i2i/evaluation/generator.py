"""The generator alone as a recommender: what the LLM knows before any item-to-item model."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from llm_i2i.catalogue import histories_by_user, item_indices
from llm_i2i.errors import ArtifactError
from llm_i2i.evaluation.evaluate import summarise, targets_sha256
from llm_i2i.evaluation.metrics import list_metrics
from llm_i2i.evaluation.protocol import Protocol
from llm_i2i.llm.engine.device import resolve_runtime
from llm_i2i.llm.engine.models import TargetLogits, context_length, load_for_inference
from llm_i2i.llm.engine.next_items import NextItems
from llm_i2i.llm.histories import next_item_prompt, sample_keys
from llm_i2i.llm.identifiers import Identifiers, load_vocabulary
from llm_i2i.llm.prompts import generator_prompt, load_template
from llm_i2i.params import EvaluateGeneratorParams, RuntimeParams, TrainGeneratorParams
from llm_i2i.schema import ITEM_ID, PER_USER, USER_ID

log = logging.getLogger(__name__)


def evaluate_generator(
    *,
    history: pd.DataFrame,
    test: pd.DataFrame,
    items: pd.DataFrame,
    identifiers: Identifiers,
    base_model: Path,
    generator: Path | None,
    params: TrainGeneratorParams,
    asked: EvaluateGeneratorParams,
    protocol: Protocol,
    runtime: RuntimeParams,
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Rank the catalogue for test users by the next item's probability after the user's history.

    The whole catalogue is a candidate but the user's own history, as for an index under the same protocol. The
    generator's query is its prompt, the last `max_history` items of equal weight, and so says the protocol of the
    metrics. Where an item is more than one token, a list is no longer than the beam is wide: cut-offs beyond
    that have no metric.

    Args:
        history: Interactions before the target, schema.INTERACTIONS: train and valid for test targets.
        test: schema.INTERACTIONS, one row a user.
        items: schema.ITEMS.
        identifiers: The items' names.
        base_model: Output folder of stage base_model.
        generator: Output folder of stage train_generator, or None for the base model before tuning.
        params: Section train_generator: template and history length.
        asked: Section evaluate_generator; users are sampled by the protocol's seed.
        protocol: Of the I2I models; last_m and decay are replaced.
        runtime: Section runtime.

    Returns:
        Metrics as `evaluate_index` gives them, without the reachable shares, and schema.PER_USER sorted by user_id.
        A target outside the longest list has rank 0.

    Raises:
        ArtifactError: No test user has a history.
    """
    device = resolve_runtime(runtime)
    template, _ = load_template(params.template, "generator")
    vocabulary = load_vocabulary(base_model, identifiers, items, seed=protocol.seed)
    catalogue = vocabulary.catalogue
    prompt = generator_prompt(vocabulary.tokenizer, template)  # type: ignore[arg-type]  # load_template checked the task
    known = test[test[USER_ID].isin(history[USER_ID])]
    if known.empty:
        raise ArtifactError("test", f"none of {len(test):,} users has a history", "users of train or valid")
    by_user = histories_by_user(history, items)
    users = sample_keys(sorted(known[USER_ID]), asked.max_users, seed=protocol.seed)
    chosen = known[known[USER_ID].isin(users)].sort_values(USER_ID, ignore_index=True)
    targets = item_indices(chosen[ITEM_ID], items, where="test")
    histories = [by_user[user] for user in chosen[USER_ID]]
    limits = {"max_history": params.max_history, "context": context_length(base_model)}
    prompts = [next_item_prompt(h, prompt, catalogue, **limits) for h in histories]
    next_items = NextItems(
        TargetLogits(load_for_inference(base_model, generator, device, new_tokens=vocabulary.new_tokens)),
        catalogue,
        device.device,
        softmax=params.softmax,
    )
    longest = max(protocol.ks) if catalogue.single_token else min(max(protocol.ks), asked.num_beams)
    lists = np.full((len(chosen), longest), -1, dtype=np.int64)
    # Prompts of similar length share a batch: little padding.
    order = np.argsort([-len(p) for p in prompts], kind="stable")
    for start in tqdm(range(0, len(order), asked.batch_users), unit="batch", disable=None, desc="evaluate"):
        rows = order[start : start + asked.batch_users]
        excluded = [np.unique(histories[i]) for i in rows]
        batch = [prompts[i] for i in rows]
        lists[rows] = next_items.top(
            batch, excluded, n=longest, num_beams=max(asked.num_beams, longest)
        ).items
    hits = lists == targets[:, None]
    ranks = np.where(hits.any(axis=1), hits.argmax(axis=1) + 1, 0)
    own = protocol.model_copy(update={"last_m": params.max_history, "decay": 1.0})
    shown = own.model_copy(update={"ks": tuple(k for k in own.ks if k <= longest)})
    buckets, long_tail = items["bucket"].to_numpy(), items["is_long_tail"].to_numpy(dtype=np.bool_)
    summary = summarise(ranks, buckets=buckets[targets], long_tail=long_tail[targets], protocol=shown)
    metrics: dict[str, Any] = {
        "protocol_hash": own.hash,
        "protocol": own.model_dump(mode="json"),
        "test_sha256": targets_sha256(chosen),
        **{name: value for name, value in summary.items() if not name.startswith("reachable_share")},
    }
    n_train, tail = items["n_train"].to_numpy(), buckets == "tail"
    for k in shown.ks:
        metrics |= list_metrics(lists[:, :k], n_train=n_train, tail=tail, long_tail=long_tail)
    per_user = pd.DataFrame(
        {
            USER_ID: chosen[USER_ID],
            ITEM_ID: chosen[ITEM_ID],
            "bucket": pd.Series(buckets[targets], dtype="str"),
            "rank": ranks,
        }
    ).astype(PER_USER)
    k = shown.ks[-1]
    log.info("generator alone: %d users, recall@%d %.4f", len(chosen), k, metrics["overall"][f"recall@{k}"])
    return metrics, per_user
