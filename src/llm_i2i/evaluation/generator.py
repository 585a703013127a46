"""The generator alone as a recommender: what the LLM knows before any item-to-item model."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from llm_i2i.evaluation.evaluate import summarise
from llm_i2i.evaluation.metrics import list_metrics
from llm_i2i.evaluation.protocol import Protocol
from llm_i2i.llm.device import resolve_runtime
from llm_i2i.llm.histories import item_indices, next_item_prompt, sample_keys, user_sequences
from llm_i2i.llm.identifiers import Identifiers, load_vocabulary
from llm_i2i.llm.lm import TargetLogits, context_length, load_for_inference
from llm_i2i.llm.next_items import NextItems
from llm_i2i.llm.prompts import generator_prompt, load_template
from llm_i2i.params import RuntimeParams, TrainGeneratorParams
from llm_i2i.schema import ITEM_ID, USER_ID

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
    protocol: Protocol,
    runtime: RuntimeParams,
    num_beams: int = 20,
    max_users: int = 0,
    batch_users: int = 256,
) -> dict[str, Any]:
    """Rank the catalogue for every test user by the next item's probability after the user's history.

    The whole catalogue is a candidate but the user's own history, as for an index under the same protocol; of
    `protocol` only the cut-offs decide how lists are read: the generator's query is its prompt, the last
    `max_history` items.

    Args:
        history: Interactions before the target, schema.INTERACTIONS: train and valid for test targets.
        test: schema.INTERACTIONS, one row a user.
        items: schema.ITEMS.
        identifiers: The items' names.
        base_model: Output folder of stage base_model.
        generator: Output folder of stage train_generator, or None for the base model before tuning.
        params: Section train_generator: template and history length.
        protocol: For its cut-offs.
        runtime: Section runtime.
        num_beams: Width of the beam search, where an item is more than one token; at least the largest cut-off.
        max_users: 0 = all; else a sample by the protocol's seed.
        batch_users: Users at a time.

    Returns:
        Metrics as `evaluate_index` gives them: overall, by bucket of the target, and of the lists. A target
        outside the longest list counts as not found.
    """
    device = resolve_runtime(runtime)
    template, _ = load_template(params.template, "generator")
    vocabulary = load_vocabulary(base_model, identifiers, items, seed=protocol.seed)
    catalogue = vocabulary.catalogue
    prompt = generator_prompt(vocabulary.tokenizer, template)  # type: ignore[arg-type]  # load_template checked the task
    by_user = user_sequences(history, items)
    target_of = dict(zip(test[USER_ID].astype(str), item_indices(items, test[ITEM_ID]), strict=True))
    users = sample_keys(sorted(set(target_of) & set(by_user)), max_users, seed=protocol.seed)
    users = sorted(users, key=lambda u: (len(by_user[u]), u))
    next_items = NextItems(
        TargetLogits(load_for_inference(base_model, generator, device, new_tokens=vocabulary.new_tokens)),
        catalogue,
        device.device,
    )
    limits = {"max_history": params.max_history, "context": context_length(base_model)}
    top_k = max(protocol.ks)
    found = []
    for start in tqdm(range(0, len(users), batch_users), unit="batch", disable=None, desc="evaluate"):
        histories = [by_user[u] for u in users[start : start + batch_users]]
        prompts = [next_item_prompt(h, prompt, catalogue, **limits) for h in histories]
        excluded = [np.unique(h) for h in histories]
        found.append(next_items.top(prompts, excluded, n=top_k, num_beams=max(num_beams, top_k)).items)
    lists = np.concatenate(found)
    targets = np.array([target_of[u] for u in users], dtype=np.int64)
    hits = lists == targets[:, None]
    ranks = np.where(hits.any(axis=1), hits.argmax(axis=1) + 1, 0)
    buckets, long_tail = items["bucket"].to_numpy(), items["is_long_tail"].to_numpy(dtype=np.bool_)
    metrics = {
        **summarise(ranks, buckets=buckets[targets], long_tail=long_tail[targets], protocol=protocol),
        **list_metrics(
            lists, n_train=items["n_train"].to_numpy(), tail=buckets == "tail", long_tail=long_tail
        ),
    }
    log.info(
        "generator alone: %d users, recall@%d %.4f", len(users), top_k, metrics["overall"][f"recall@{top_k}"]
    )
    return metrics
