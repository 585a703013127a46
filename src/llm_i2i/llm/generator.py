"""The generator: which item does a user take next (LLM-I2I, arXiv 2512.21595, section 3.2).

Differs from the paper: a training sequence is the instruction followed by a window of the user's items, with a loss
at every item of the window. One causal pass then trains as many targets as the window has items, each given the items
before it, with the same loss as one prompt per target.

Differs from the paper: with `softmax: catalogue` the loss is -log P(item) among the catalogue, not that of the item's
text among all texts. The model need not learn tokens that are determined by the ones before them, nor texts of no item.
"""

import logging
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from llm_i2i.arrays import FloatArray, IntArray
from llm_i2i.catalogue import histories_by_user, sample_keys, targets_by_user, without_rows
from llm_i2i.files import write_csv
from llm_i2i.llm.engine.batches import Sequence
from llm_i2i.llm.engine.beam import NextItems
from llm_i2i.llm.engine.logits import TargetLogits
from llm_i2i.llm.engine.loss import LogitsFunction, logits_over_children, logits_over_tokens, logits_over_vocabulary
from llm_i2i.llm.engine.training import EarlyStopping, TrainingSetup, plan_steps, train_model
from llm_i2i.llm.engine.trie import Catalogue, Trie, TrieOnDevice, build_trie
from llm_i2i.llm.prompts import GeneratorPrompt, recent_that_fit
from llm_i2i.llm.role import LlmSetup, Role, Task, generator_role, item_ranker, next_item_prompt
from llm_i2i.measures import ndcg_at_k, target_ranks
from llm_i2i.params import TrainGeneratorParams

log = logging.getLogger(__name__)
# Length of the lists that early stopping reads, and users per batch of them.
SELECTION_K, SELECTION_BATCH = 10, 256


def training_windows(sequences: dict[str, IntArray], max_history: int) -> list[IntArray]:
    """Cut users' sequences into windows of at most `max_history` + 1 items.

    Neighbouring windows share one item: the last target of one is the first context of the next. So every item
    except a user's first is a target exactly once, with 1 to `max_history` items before it.
    """
    windows: list[IntArray] = []
    for items in sequences.values():
        starts = range(0, len(items) - 1, max_history)
        windows.extend(items[start : start + max_history + 1] for start in starts)
    return windows


def window_sequence(
    window: IntArray, prompt: GeneratorPrompt, catalogue: Catalogue, item_weights: FloatArray, trie: Trie | None = None
) -> Sequence:
    """Instruction and window as tokens; every item except the first is a target.

    With `trie` the loss is taken only at tokens that have an alternative in the catalogue, over those alternatives;
    without, at every token, over the vocabulary (or over the items, where every item is one token).

    Args:
        window: Item indices, at least two.
        prompt: The instruction.
        catalogue: Token ids of the items.
        item_weights: float64 (n_items,): loss weight of an item as a target.
        trie: The catalogue, for a softmax over it.
    """
    ids = np.concatenate([prompt.prefix, catalogue.concat(window)])
    blocks = np.zeros(len(ids), dtype=np.int64)
    targets, lengths = window[1:], catalogue.lengths[window[1:]]
    # The output at position p predicts token p + 1.
    before = len(prompt.prefix) + catalogue.lengths[window[0]] - 1 + np.cumsum(lengths) - lengths
    if trie is not None:
        choices = [trie.choices(item, length) for item, length in zip(targets, lengths, strict=True)]
        places, nodes, labels = (np.concatenate(parts) for parts in zip(*choices, strict=True))
        n_choices = [len(choice[0]) for choice in choices]
        positions = np.repeat(before, n_choices) + places
        return Sequence(ids, blocks, positions, labels, np.repeat(item_weights[targets], n_choices), nodes)
    positions = np.arange(before[0], len(ids) - 1)
    # Where every item is one token, the softmax is over the catalogue alone: a label is an item.
    labels = targets if catalogue.single_token else ids[positions + 1]
    return Sequence(ids, blocks, positions, labels, np.repeat(item_weights[targets], lengths))


@dataclass(frozen=True)
class _Training:
    """A training of the generator, whatever the users' items."""

    role: Role[GeneratorPrompt]
    params: TrainGeneratorParams

    @cached_property
    def trie(self) -> Trie | None:
        """The catalogue to take the softmax over; None for the vocabulary, or where every item is one token."""
        over_catalogue = self.params.softmax == "catalogue" and not self.role.catalogue.single_token
        return build_trie(self.role.catalogue) if over_catalogue else None

    def sequences(self, by_user: dict[str, IntArray]) -> list[Sequence]:
        """A seeded sample of the users' windows as training sequences."""
        role, params = self.role, self.params
        long_tail = role.setup.items["is_long_tail"].to_numpy()
        weights = np.where(long_tail, params.tail_weight, params.head_weight)
        windows = training_windows(by_user, params.max_history)
        kept = sample_keys(windows, params.max_windows, seed=role.setup.seed)
        room = role.context - len(role.prompt.prefix)
        fitting = [recent_that_fit(window, role.catalogue.lengths, room) for window in kept]
        found = [window_sequence(w, role.prompt, role.catalogue, weights, self.trie) for w in fitting if len(w) > 1]
        tokens = sum(map(len, found))
        log.info("train_generator: %d of %d windows, %d tokens", len(kept), len(windows), tokens)
        return found

    def logits(self) -> LogitsFunction:
        """What the softmax is over; where every item is one token, always the catalogue."""
        device = self.role.device.device
        if self.role.catalogue.single_token:
            return logits_over_tokens(torch.from_numpy(self.role.catalogue.tokens[:, 0]).to(device))
        if self.trie is None:
            return logits_over_vocabulary
        return logits_over_children(TrieOnDevice.of(self.trie, device))

    def early_stopping(
        self, module: TargetLogits, by_user: dict[str, IntArray], targets: dict[str, int], per_epoch: float
    ) -> EarlyStopping:
        """By NDCG@10 of the targets, each after its user's items; `per_epoch`: optimizer steps."""
        settings, ranker = self.params.early_stopping, item_ranker(self.role, module)
        asked = sample_keys(sorted(targets), settings.max_users, seed=self.role.setup.seed)
        known = {user: by_user[user] for user in asked}
        every = max(1, round(settings.every * per_epoch))
        return EarlyStopping(lambda: self._ndcg(ranker, known, targets), every, settings.patience)

    def _ndcg(self, ranker: NextItems, known: dict[str, IntArray], targets: dict[str, int]) -> float:
        """NDCG@10 of each user's target, the whole catalogue ranked without the user's items."""
        users = sorted(known, key=lambda user: len(known[user]))
        found = []
        for start in range(0, len(users), SELECTION_BATCH):
            histories = [known[user] for user in users[start : start + SELECTION_BATCH]]
            prompts = [next_item_prompt(self.role, history) for history in histories]
            excluded = [np.unique(history) for history in histories]
            found.append(ranker.top(prompts, excluded, n=SELECTION_K, num_beams=SELECTION_K).items)
        ranks = target_ranks(np.concatenate(found), np.array([targets[user] for user in users]))
        return float(ndcg_at_k(ranks, SELECTION_K).mean())


def train_generator(
    *,
    train: pd.DataFrame,
    held_out: pd.DataFrame,
    setup: LlmSetup,
    params: TrainGeneratorParams,
    out: Path,
    checkpoints: Path,
    section: str = "train_generator",
) -> dict[str, Any]:
    """Tune the generator; write its adapter (or whole model), `task.json` and `training.csv` into `out`.

    Early stopping keeps the weights with the best NDCG@10 on the items held out (`early_stopping.csv`). They are
    *training* items: the valid split stays unseen, as synthetic data may not depend on it.

    Args:
        train: Training interactions (schema.INTERACTIONS).
        held_out: Rows of `train` that are not trained on (schema.HELD_OUT).
        setup: Items, names, base model, runtime and seed.
        params: Section train_generator.
        out: Folder of the adapter.
        checkpoints: Folder of resumable states; the caller removes it once the output is in place.
        section: Where `params` come from, for messages.

    Returns:
        Runtime facts (device, tokens/s, ...).

    Raises:
        ParamsError: The template does not exist.
        DataError: No user has two training interactions.
        TrainingError: The training diverges.
    """
    role = generator_role(setup, Task.of(params))
    training = _Training(role, params)
    by_user = histories_by_user(without_rows(train, held_out), setup.items)
    out.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    module, sequences = role.fresh(params, by_user), training.sequences(by_user)
    per_epoch = len(plan_steps([len(s) for s in sequences], params, seed=setup.seed)) / params.epochs
    stopping = None
    if params.early_stopping.patience:
        targets = targets_by_user(held_out, setup.items)
        stopping = training.early_stopping(module, by_user, targets, per_epoch)
    how = TrainingSetup(params, role.device, setup.seed, role.catalogue.end_id, training.logits(), section)
    training_log = train_model(module, sequences, how, checkpoints=checkpoints, early_stopping=stopping)
    if stopping:
        evaluations = [(s, round(s / per_epoch, 3), round(v, 6)) for s, v in training_log.evaluations]
        write_csv(out / "early_stopping.csv", ("step", "epoch", "ndcg@10"), evaluations)
        if evaluations[-1][0] == training_log.best_step:
            log.warning("train_generator: NDCG@10 still rises at the end: raise train_generator.epochs")
    seconds = time.perf_counter() - started
    return {
        **role.save(module, training_log, out),
        "windows": len(sequences),
        "target_tokens": int(sum(len(s.labels) for s in sequences)),
        **role.device.usage,
        **training_log.facts(seconds),
    }
