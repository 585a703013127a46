"""The generator: which item does a user take next (LLM-I2I, arXiv 2512.21595, section 3.2).

Differs from the paper: a training sequence is the instruction followed by a window of the user's items, and the
loss stands at every item of the window. One causal pass then trains as many targets as the window has items,
each given the items before it, with the same loss as one prompt a target.

Differs from the paper: with `softmax: catalogue` the loss is -log P(item) among the catalogue, not that of the
item's text among all texts. What an item's text goes on with of itself, or in no item, is nothing to be learnt.
"""

import csv
import logging
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from llm_i2i.arrays import IntArray
from llm_i2i.catalogue import histories_by_user
from llm_i2i.llm.engine.batches import Sequence
from llm_i2i.llm.engine.device import Runtime, peak_memory_mb, resolve_runtime
from llm_i2i.llm.engine.loss import Classes, over_children, over_tokens, over_vocabulary
from llm_i2i.llm.engine.models import TargetLogits, context_length, load_for_training, with_vectors
from llm_i2i.llm.engine.new_tokens import NewTokens
from llm_i2i.llm.engine.next_items import NextItems, ndcg_at_k
from llm_i2i.llm.engine.training import (
    EarlyStopping,
    TrainingLog,
    plan_steps,
    process_facts,
    save_model,
    train_model,
)
from llm_i2i.llm.engine.trie import Catalogue, Trie, TrieOnDevice, build_trie
from llm_i2i.llm.histories import next_item_prompt, recent_that_fit, sample_keys
from llm_i2i.llm.identifiers import Identifiers, load_vocabulary
from llm_i2i.llm.prompts import GeneratorPrompt, generator_prompt, load_template
from llm_i2i.llm.task import adapter_sha256, write_task
from llm_i2i.params import RuntimeParams, TrainGeneratorParams

log = logging.getLogger(__name__)
# Lists that early stopping reads, and users a batch of them.
SELECTION_K, SELECTION_BATCH = 10, 256


def training_windows(sequences: dict[str, IntArray], max_history: int) -> list[IntArray]:
    """Cut users' sequences into windows of at most `max_history` + 1 items.

    Neighbouring windows share one item: the last target of one is the first context of the next. So every item
    but a user's first is a target exactly once, with 1 to `max_history` items before it.
    """
    windows: list[IntArray] = []
    for items in sequences.values():
        starts = range(0, len(items) - 1, max_history)
        windows.extend(items[start : start + max_history + 1] for start in starts)
    return windows


def window_sequence(
    window: IntArray,
    prompt: GeneratorPrompt,
    catalogue: Catalogue,
    item_weights: np.ndarray[Any, np.dtype[np.float64]],
    trie: Trie | None = None,
) -> Sequence:
    """Instruction and window as tokens; every item but the first is a target.

    With `trie` the loss stands only at the tokens that have an alternative in the catalogue, among those
    alternatives; without, at every token, among the vocabulary (or, where every item is one token, the items).

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
class _Fit:
    """All that a training of the generator needs besides its windows."""

    base_model: Path
    prompt: GeneratorPrompt
    catalogue: Catalogue
    new_tokens: NewTokens | None
    items: pd.DataFrame
    item_weights: np.ndarray[Any, np.dtype[np.float64]]
    params: TrainGeneratorParams
    device: Runtime
    seed: int

    @cached_property
    def trie(self) -> Trie | None:
        """The catalogue to take the softmax over, None for the vocabulary or where every item is one token."""
        over_catalogue = self.params.softmax == "catalogue" and not self.catalogue.single_token
        return build_trie(self.catalogue) if over_catalogue else None

    def sequences(self, by_user: dict[str, IntArray]) -> list[Sequence]:
        """A seeded sample of the users' windows as training sequences."""
        windows = training_windows(by_user, self.params.max_history)
        keep = sample_keys([str(i) for i in range(len(windows))], self.params.max_windows, seed=self.seed)
        room = context_length(self.base_model) - len(self.prompt.prefix)
        fitting = [recent_that_fit(windows[int(i)], self.catalogue.lengths, room) for i in keep]
        found = [
            window_sequence(w, self.prompt, self.catalogue, self.item_weights, self.trie)
            for w in fitting
            if len(w) > 1
        ]
        log.info(
            "train_generator: %d of %d windows, %d tokens", len(keep), len(windows), sum(map(len, found))
        )
        return found

    def module(self, by_user: dict[str, IntArray]) -> TargetLogits:
        """The model before training on these users' items."""
        new_tokens = with_vectors(
            self.new_tokens, self.items, by_user, base_model=self.base_model, seed=self.seed
        )
        return TargetLogits(
            load_for_training(
                self.base_model, self.params, self.device, seed=self.seed, new_tokens=new_tokens
            )
        )

    def train(
        self, module: TargetLogits, sequences: list[Sequence], checkpoints: Path, **options: Any
    ) -> TrainingLog:
        """Train `module`."""
        return train_model(
            module,
            sequences,
            params=self.params,
            runtime=self.device,
            seed=self.seed,
            pad_id=self.catalogue.end_id,
            checkpoints=checkpoints,
            classes=self._classes(),
            **options,
        )

    def _classes(self) -> Classes:
        """What the softmax is over: the catalogue in any case where every item is one token."""
        if self.catalogue.single_token:
            return over_tokens(torch.from_numpy(self.catalogue.tokens[:, 0]).to(self.device.device))
        if self.trie is None:
            return over_vocabulary
        return over_children(TrieOnDevice.of(self.trie, self.device.device))

    def n_steps(self, sequences: list[Sequence]) -> int:
        """Optimizer steps of the whole plan."""
        return len(plan_steps([len(s) for s in sequences], self.params, seed=self.seed))


def train_generator(
    *,
    train: pd.DataFrame,
    items: pd.DataFrame,
    identifiers: Identifiers,
    base_model: Path,
    params: TrainGeneratorParams,
    runtime: RuntimeParams,
    seed: int,
    out: Path,
    checkpoints: Path,
) -> dict[str, Any]:
    """Tune the generator and write its adapter (or whole model), `task.json` and `training.csv` into `out`.

    Early stopping holds the last *training* item of a sample of users out and keeps the weights of the best
    NDCG@10 on them (`early_stopping.csv`): the valid split stays unseen, as synthetic data may not depend on it.
    With `refit` the generator is then trained anew on every training row, for as many epochs as were best.

    Args:
        train: Training interactions (schema.INTERACTIONS).
        items: Catalogue (schema.ITEMS).
        identifiers: The items' names.
        base_model: Output folder of stage base_model.
        params: Section train_generator.
        runtime: Section runtime.
        seed: Samples windows, initialises the adapter, orders batches.
        out: Folder of the adapter.
        checkpoints: Folder of resumable states; the caller removes it once the output is in place.

    Returns:
        Runtime facts (device, tokens/s, ...).

    Raises:
        ParamsError: The template does not exist.
        DataError: No user has two training interactions.
    """
    out.mkdir(parents=True, exist_ok=True)
    device = resolve_runtime(runtime)
    template, template_sha256 = load_template(params.template, "generator")
    vocabulary = load_vocabulary(base_model, identifiers, items, seed=seed)
    prompt = generator_prompt(vocabulary.tokenizer, template)  # type: ignore[arg-type]  # load_template checked the task
    catalogue = vocabulary.catalogue
    weights = np.where(items["is_long_tail"].to_numpy(), params.tail_weight, params.head_weight)
    fit = _Fit(base_model, prompt, catalogue, vocabulary.new_tokens, items, weights, params, device, seed)
    by_user = histories_by_user(train, items)
    started = time.perf_counter()
    if params.early_stopping.patience:
        module, sequences, training_log = _train_stopping_early(fit, by_user, out, checkpoints)
    else:
        module, sequences = fit.module(by_user), fit.sequences(by_user)
        training_log = fit.train(module, sequences, checkpoints)
    seconds = time.perf_counter() - started
    save_model(module.model, out)
    training_log.write(out / "training.csv")
    write_task(
        out,
        {
            "template": params.template,
            "template_sha256": template_sha256,
            "max_history": params.max_history,
            "softmax": params.softmax,
        },
    )
    facts = {
        "adapter_sha256": adapter_sha256(out),
        "windows": len(sequences),
        "target_tokens": int(sum(len(s.labels) for s in sequences)),
    }
    return {**facts, **device.facts, **peak_memory_mb(device), **process_facts(seconds, training_log)}


def _train_stopping_early(
    fit: _Fit, by_user: dict[str, IntArray], out: Path, checkpoints: Path
) -> tuple[TargetLogits, list[Sequence], TrainingLog]:
    """Search the best number of epochs, then (with `refit`) train on everything for as long."""
    settings = fit.params.early_stopping
    # A user keeps at least one target of its own.
    long_enough = [user for user, items in by_user.items() if len(items) >= 3]
    held_out = set(sample_keys(long_enough, settings.max_users, seed=fit.seed))
    shortened = {u: items[:-1] if u in held_out else items for u, items in by_user.items()}
    module, sequences = fit.module(shortened), fit.sequences(shortened)
    n_steps = fit.n_steps(sequences)
    next_items = NextItems(module, fit.catalogue, fit.device.device, softmax=fit.params.softmax)
    early_stopping = EarlyStopping(
        metric=lambda: _ndcg(fit, next_items, {u: by_user[u] for u in sorted(held_out)}),
        every=max(1, round(settings.every * n_steps / fit.params.epochs)),
        patience=settings.patience,
    )
    training_log = fit.train(module, sequences, checkpoints / "search", early_stopping=early_stopping)
    _write_evaluations(training_log, n_steps / fit.params.epochs, out / "early_stopping.csv")
    if not settings.refit:
        return module, sequences, training_log
    module, sequences = fit.module(by_user), fit.sequences(by_user)
    stop_after = max(1, round(training_log.best_step / n_steps * fit.n_steps(sequences)))
    return (
        module,
        sequences,
        fit.train(module, sequences, checkpoints / "refit", stop_after=stop_after),
    )


def _ndcg(fit: _Fit, next_items: NextItems, by_user: dict[str, IntArray]) -> float:
    """NDCG@10 of each user's last item after the others, the whole catalogue ranked, the others removed."""
    histories = sorted(by_user.values(), key=len)
    limits = {"max_history": fit.params.max_history, "context": context_length(fit.base_model)}
    found = []
    for start in range(0, len(histories), SELECTION_BATCH):
        batch = histories[start : start + SELECTION_BATCH]
        prompts = [next_item_prompt(h[:-1], fit.prompt, fit.catalogue, **limits) for h in batch]
        excluded = [np.unique(h[:-1]) for h in batch]
        found.append(next_items.top(prompts, excluded, n=SELECTION_K, num_beams=SELECTION_K).items)
    return ndcg_at_k(np.concatenate(found), np.array([h[-1] for h in histories]))


def _write_evaluations(training_log: TrainingLog, steps_per_epoch: float, path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("step", "epoch", "ndcg@10"))
        for step, value in training_log.evaluations:
            writer.writerow((step, round(step / steps_per_epoch, 3), round(value, 6)))
