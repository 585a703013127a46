"""Training: one loop for generator and discriminator, an adapter or a whole model, resumable to the same weights."""

import csv
import hashlib
import json
import logging
import math
import os
import time
from collections.abc import Callable
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import bitsandbytes as bnb
import numpy as np
import torch
from accelerate import Accelerator
from peft import PeftModel
from torch.optim.lr_scheduler import LambdaLR
from tqdm import tqdm

from llm_i2i.arrays import IntArray
from llm_i2i.errors import DataError
from llm_i2i.llm.engine.batches import Batch, Sequence, collate, padding_share, plan_batches
from llm_i2i.llm.engine.device import Runtime
from llm_i2i.llm.engine.loss import Classes, over_vocabulary, weighted_nll
from llm_i2i.llm.engine.models import TargetLogits
from llm_i2i.params import LlmTraining

log = logging.getLogger(__name__)
LOG_COLUMNS = ("step", "loss", "learning_rate", "tokens", "targets")
Weights = dict[str, torch.Tensor]


@dataclass(frozen=True)
class EarlyStopping:
    """Keep the best weights by a metric, and stop when it no longer rises.

    Attributes:
        metric: Reads the model in eval mode; higher is better.
        every: Optimizer steps between evaluations.
        patience: Evaluations in a row without a better value before training stops.
    """

    metric: Callable[[], float]
    every: int
    patience: int


@dataclass
class TrainingLog:
    """What training tells.

    Attributes:
        rows: One a step, `LOG_COLUMNS`: the same on every run of one machine.
        tokens_per_s: One a step of this process; differs from run to run.
        evaluations: (step, metric) of early stopping.
        padding_share: Share of the computed tokens that are padding.
    """

    rows: list[list[float]] = field(default_factory=list)
    tokens_per_s: list[float] = field(default_factory=list)
    evaluations: list[tuple[int, float]] = field(default_factory=list)
    padding_share: float = 0.0

    def add(self, row: list[float], *, seconds: float) -> None:
        """Add a step: its `LOG_COLUMNS` and how long it took."""
        self.rows.append(row)
        self.tokens_per_s.append(round(row[3] / seconds, 1))

    @property
    def best_step(self) -> int:
        """The first step of the best evaluation."""
        return max(self.evaluations, key=lambda found: (found[1], -found[0]))[0]

    def write(self, path: Path) -> None:
        """Write `rows` as CSV, a source of `dvc plots`."""
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(LOG_COLUMNS)
            writer.writerows(self.rows)


def plan_steps(
    lengths: list[int], params: LlmTraining, *, seed: int, n_processes: int = 1
) -> list[list[IntArray]]:
    """The whole training as a list of optimizer steps, each a list of micro-batches of sequence indices.

    Every epoch visits every sequence once, in batches of similar length, batches and their order drawn anew; a
    fractional last epoch is cut. Fixed before training, so that a resumed run sees the same batches and the loss
    weights of a step can be summed over its micro-batches.
    """
    rng = np.random.default_rng(seed)
    sizes = np.asarray(lengths, dtype=np.int64)
    micro: list[IntArray] = []
    for _ in range(math.ceil(params.epochs)):
        order = rng.permutation(len(sizes))
        batches = [order[batch] for batch in plan_batches(sizes[order], params.batch_tokens)]
        micro += [batches[i] for i in rng.permutation(len(batches))]
    micro = micro[: max(1, round(params.epochs * len(batches)))]
    size = params.accumulation * n_processes
    return [micro[start : start + size] for start in range(0, len(micro), size)]


def train_model(
    module: TargetLogits,
    sequences: SequenceOf[Sequence],
    *,
    params: LlmTraining,
    runtime: Runtime,
    seed: int,
    pad_id: int,
    checkpoints: Path,
    classes: Classes = over_vocabulary,
    early_stopping: EarlyStopping | None = None,
    stop_after: int | None = None,
) -> TrainingLog:
    """Train whatever of `module` requires a gradient.

    Args:
        module: Holds a PEFT model with a trainable adapter, or a model that trains whole.
        sequences: The training set.
        params: Learning rate, batch size in tokens, and so on.
        runtime: Device and dtype.
        seed: Orders the batches.
        pad_id: Token id of padding (masked, so any will do).
        checkpoints: Folder for resumable states; one of another training is discarded.
        classes: What the softmax is over; the sequences' labels number it.
        early_stopping: Leaves the best weights in `module`, not the last.
        stop_after: End after this many steps of the plan; the learning rate still follows the whole plan.

    Raises:
        DataError: There is nothing to train on.
    """
    if not sequences:
        raise DataError("training set", "no sequence", "users with at least two training interactions")
    accelerator = Accelerator(cpu=runtime.device.type == "cpu")
    steps = plan_steps([len(s) for s in sequences], params, seed=seed, n_processes=accelerator.num_processes)
    last = len(steps) if stop_after is None else min(stop_after, len(steps))
    named = {name: p for name, p in module.named_parameters() if p.requires_grad}
    trainable = list(named.values())
    torch.manual_seed(seed)
    optimizer = _optimizer(trainable, params)
    schedule = _linear_schedule(optimizer, math.ceil(params.warmup_share * len(steps)), len(steps))
    checkpoint = _Checkpoint(
        checkpoints / "state.pt", _fingerprint(sequences, params, seed, last), named, optimizer, schedule
    )
    training_log = TrainingLog()
    done = checkpoint.restore(training_log)
    training_log.padding_share = padding_share(
        [len(s) for s in sequences], [micro for step in steps for micro in step]
    )
    module.train()
    bar = tqdm(total=last, initial=done, unit="step", disable=None, desc="train")
    began = time.perf_counter()
    for number in range(done, last):
        if early_stopping is not None and _no_longer_rises(training_log, early_stopping.patience):
            break
        started = time.perf_counter()
        weight_total = float(sum(sequences[i].weights.sum() for micro in steps[number] for i in micro))
        mine = steps[number][accelerator.process_index :: accelerator.num_processes]
        sums = (0.0, 0, 0)
        for micro in mine:
            batch = collate([sequences[i] for i in micro], pad_id).to(runtime.device)
            loss = _backward(module, batch, classes, weight_total, accelerator)
            sums = (sums[0] + loss, sums[1] + batch.n_tokens, sums[2] + len(batch.labels))
        loss_sum, tokens, targets = _sum_over_processes(accelerator, trainable, sums)
        torch.nn.utils.clip_grad_norm_(trainable, 1.0)
        row = [number + 1, round(loss_sum, 6), float(schedule.get_last_lr()[0]), tokens, targets]
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        training_log.add(row, seconds=time.perf_counter() - started)
        bar.update()
        bar.set_postfix(loss=f"{loss_sum:.3f}", tokens_s=f"{training_log.tokens_per_s[-1]:.0f}")
        if (number + 1) % max(1, last // 10) == 0:
            _log_progress(
                training_log, last, seconds_a_step=(time.perf_counter() - began) / (number + 1 - done)
            )
        if early_stopping is not None and ((number + 1) % early_stopping.every == 0 or number + 1 == last):
            _evaluate(module, early_stopping, number + 1, training_log, checkpoint)
        if accelerator.is_main_process and (
            (number + 1) % params.checkpoint_every == 0 or number + 1 == last
        ):
            checkpoint.save(number + 1, training_log)
    bar.close()
    if early_stopping is not None:
        checkpoint.take_best()
    rows = training_log.rows
    log.info(
        "trained %d steps, loss %.3f -> %.3f, %.1f %% padding",
        len(rows),
        rows[0][1],
        rows[-1][1],
        100 * training_log.padding_share,
    )
    return training_log


def _backward(
    module: TargetLogits,
    batch: Batch,
    classes: Classes,
    weight_total: float,
    accelerator: Accelerator,
) -> float:
    """Add a micro-batch's gradients; returns its share of the step's loss."""
    loss = weighted_nll(classes(module, batch), batch.labels, batch.weights, weight_total)
    accelerator.backward(loss)
    return float(loss.detach())


def _sum_over_processes(
    accelerator: Accelerator, trainable: list[torch.nn.Parameter], sums: tuple[float, int, int]
) -> tuple[float, int, int]:
    """Add up the gradients, in place, and the loss, tokens and targets of all processes.

    The loss of a micro-batch is divided by the weights of the whole step, so the sum is the step's gradient. Not
    DistributedDataParallel: it waits for ever where the micro-batches of a step, such as the last one, do not
    divide evenly among the processes.
    """
    if accelerator.num_processes == 1:
        return sums
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in trainable]
    flat = accelerator.reduce(torch.cat([g.flatten() for g in gradients]), "sum")
    for p, part in zip(trainable, flat.split([p.numel() for p in trainable]), strict=True):
        p.grad = part.view_as(p)
    loss, tokens, targets = accelerator.reduce(
        torch.tensor(sums, dtype=torch.float64, device=flat.device), "sum"
    ).tolist()
    return loss, int(tokens), int(targets)


def _log_progress(training_log: TrainingLog, last: int, *, seconds_a_step: float) -> None:
    step, loss = training_log.rows[-1][:2]
    speed, left = training_log.tokens_per_s[-1], (last - step) * seconds_a_step
    log.info("step %d of %d, loss %.3f, %.0f tokens/s, %.0f s left", step, last, loss, speed, left)


def _no_longer_rises(training_log: TrainingLog, patience: int) -> bool:
    """Whether the last `patience` evaluations all stayed at or below the best one before them."""
    steps = [step for step, _ in training_log.evaluations]
    return bool(steps) and len(steps) - 1 - steps.index(training_log.best_step) >= patience


def _evaluate(
    module: TargetLogits,
    early_stopping: EarlyStopping,
    step: int,
    training_log: TrainingLog,
    checkpoint: "_Checkpoint",
) -> None:
    """Evaluate, and remember the weights if they are the best so far."""
    module.eval()
    training_log.evaluations.append((step, early_stopping.metric()))
    module.train()
    if training_log.best_step == step:
        checkpoint.keep_best()
    log.info("step %d: metric %.4f, best at step %d", *training_log.evaluations[-1], training_log.best_step)


def save_model(model: Any, out: Path) -> None:
    """Write what was trained as safetensors + config: an adapter as PEFT does (without its empty model card), or all.

    Args:
        model: A PEFT model, or a whole one.
        out: Folder to write to.
    """
    out.mkdir(parents=True, exist_ok=True)
    if not isinstance(model, PeftModel):
        model.save_pretrained(str(out))
        return
    # The vocabulary is never changed; without this PEFT asks the hub whether it was.
    model.save_pretrained(str(out), safe_serialization=True, save_embedding_layers=False)
    (out / "README.md").unlink(missing_ok=True)
    # PEFT keeps the names of the adapted layers as a set: their order differs from process to process.
    config = out / "adapter_config.json"
    content = json.loads(config.read_text(encoding="utf-8"))
    content["target_modules"] = sorted(content["target_modules"])
    config.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _optimizer(trainable: list[torch.nn.Parameter], params: LlmTraining) -> torch.optim.Optimizer:
    """AdamW; weight decay on matrices, not on the gains of norms."""
    groups = [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": params.weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if params.optimizer == "paged_adamw_8bit":
        optimizer: torch.optim.Optimizer = bnb.optim.PagedAdamW8bit(groups, lr=params.learning_rate)
        return optimizer
    return torch.optim.AdamW(groups, lr=params.learning_rate)


def _linear_schedule(optimizer: torch.optim.Optimizer, warmup: int, total: int) -> LambdaLR:
    """Linear warm-up over `warmup` steps, then linear decay to 1/(total - warmup + 1); no step has rate 0."""
    return LambdaLR(
        optimizer, lambda step: min((step + 1) / (warmup + 1), (total - step) / (total - warmup + 1e-9))
    )


def _fingerprint(sequences: SequenceOf[Sequence], params: LlmTraining, seed: int, last: int) -> str:
    digest = hashlib.sha256(f"{params.model_dump_json()}{seed}/{last}".encode())
    for sequence in sequences:
        arrays = (sequence.ids, sequence.blocks, sequence.labels, sequence.weights, sequence.nodes)
        for array in (a for a in arrays if a is not None):
            digest.update(array.tobytes())
    return digest.hexdigest()


class _Checkpoint:
    """A resumable state in one file: weights (also the best), optimizer, schedule, random states and log."""

    def __init__(
        self,
        path: Path,
        fingerprint: str,
        named: dict[str, torch.nn.Parameter],
        optimizer: torch.optim.Optimizer,
        schedule: LambdaLR,
    ) -> None:
        self.path, self.fingerprint, self.named = path, fingerprint, named
        self.optimizer, self.schedule = optimizer, schedule
        self.best: Weights = {}

    def keep_best(self) -> None:
        """Remember the weights as they are."""
        self.best = {name: p.detach().clone() for name, p in self.named.items()}

    def take_best(self) -> None:
        """Put the remembered weights into the model."""
        self._load(self.best)

    def save(self, step: int, training_log: TrainingLog) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        state = {
            "step": step,
            "fingerprint": self.fingerprint,
            "weights": {name: p.detach() for name, p in self.named.items()},
            "best": self.best,
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            "rows": training_log.rows,
            "evaluations": training_log.evaluations,
        }
        partial = self.path.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(self.path)

    def restore(self, training_log: TrainingLog) -> int:
        """Load the state if it is of this very training; returns the number of steps done."""
        if not self.path.is_file():
            return 0
        try:
            state = torch.load(self.path, map_location="cpu", weights_only=True)
        except Exception:  # noqa: BLE001  # a torn file raises almost anything: start afresh, as without a checkpoint
            log.warning("checkpoint %s is unreadable and is discarded", self.path)
            return 0
        if state["fingerprint"] != self.fingerprint:
            log.info("checkpoint %s is of another training and is discarded", self.path)
            return 0
        self._load(state["weights"])
        self.best = state["best"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        torch.set_rng_state(state["rng"])
        if state["cuda_rng"]:
            torch.cuda.set_rng_state_all(state["cuda_rng"])
        training_log.rows.extend(state["rows"])
        training_log.evaluations.extend(state["evaluations"])
        log.info("resuming at step %d", state["step"])
        return int(state["step"])

    @torch.no_grad()
    def _load(self, weights: Weights) -> None:
        for name, value in weights.items():
            self.named[name].copy_(value)


def process_facts(seconds: float, training_log: TrainingLog) -> dict[str, Any]:
    """Runtime facts of a training: they differ from run to run and stay out of the artifacts."""
    steps = len(training_log.tokens_per_s)
    tokens = sum(row[3] for row in training_log.rows[len(training_log.rows) - steps :])
    return {
        "training_seconds": round(seconds, 1),
        "tokens_per_s": round(tokens / seconds, 1) if seconds > 0 else 0.0,
        "tokens_per_s_by_step": training_log.tokens_per_s,
        "padding_share": round(training_log.padding_share, 4),
        "threads": torch.get_num_threads(),
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
    }
