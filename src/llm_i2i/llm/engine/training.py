"""Training: one loop for generator and discriminator, an adapter or a whole model, resumable to the same weights."""

import logging
import math
import time
from collections.abc import Callable
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass
from pathlib import Path

import bitsandbytes as bnb
import numpy as np
import torch
from accelerate import Accelerator
from torch.optim.lr_scheduler import LambdaLR
from tqdm import tqdm

from llm_i2i.arrays import IntArray
from llm_i2i.errors import DataError, TrainingError
from llm_i2i.llm.engine.batches import Sequence, collate, padding_share, plan_batches
from llm_i2i.llm.engine.checkpoints import Checkpoint, TrainingLog, training_fingerprint
from llm_i2i.llm.engine.device import Runtime
from llm_i2i.llm.engine.logits import TargetLogits
from llm_i2i.llm.engine.loss import LogitsFunction, batch_nll, logits_over_vocabulary
from llm_i2i.params import LlmTraining

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingSetup:
    """How a model is trained, whatever its training set.

    Attributes:
        params: Learning rate, batch size in tokens, and so on.
        runtime: Device and dtype.
        seed: Orders the batches.
        pad_id: Token id of padding (masked, so any will do).
        logits: The logits that the loss is computed from; the sequences' labels number their classes.
        section: Of the parameters, for messages.
    """

    params: LlmTraining
    runtime: Runtime
    seed: int
    pad_id: int
    logits: LogitsFunction = logits_over_vocabulary
    section: str = "train_generator"


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


def plan_steps(lengths: list[int], params: LlmTraining, *, seed: int, n_processes: int = 1) -> list[list[IntArray]]:
    """The whole training as a list of optimizer steps, each a list of micro-batches of sequence indices.

    Every epoch visits every sequence once, in batches of similar length; batches and their order are drawn anew. A
    fractional last epoch is cut. The plan is fixed before training, so that a resumed run sees the same batches and
    the loss weights of a step can be summed over its micro-batches.
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
    setup: TrainingSetup,
    *,
    checkpoints: Path,
    early_stopping: EarlyStopping | None = None,
) -> TrainingLog:
    """Train whatever of `module` requires a gradient.

    Args:
        module: Holds a PEFT model with a trainable adapter, or a model that trains whole.
        sequences: The training set.
        setup: How to train.
        checkpoints: Folder for resumable states; one of another training is discarded.
        early_stopping: Leaves the best weights in `module`, not the last.

    Raises:
        DataError: There is nothing to train on.
        TrainingError: A loss, a gradient or a weight is no finite number.
    """
    if not sequences:
        raise DataError("training set", "no sequence", "users with at least two training interactions")
    params, lengths = setup.params, [len(s) for s in sequences]
    accelerator = Accelerator(cpu=setup.runtime.device.type == "cpu")
    steps = plan_steps(lengths, params, seed=setup.seed, n_processes=accelerator.num_processes)
    last = len(steps)
    named = {name: p for name, p in module.named_parameters() if p.requires_grad}
    torch.manual_seed(setup.seed)
    optimizer = _optimizer(list(named.values()), params)
    schedule = _linear_schedule(optimizer, math.ceil(params.warmup_share * last), last)
    work = training_fingerprint(sequences, params, seed=setup.seed, last_step=last)
    checkpoint = Checkpoint(checkpoints / "state.pt", work, named, optimizer, schedule)
    training_log = TrainingLog(padding_share=padding_share(lengths, [m for step in steps for m in step]))
    done = checkpoint.restore(training_log)
    loop = _Loop(module, sequences, setup, accelerator, list(named.values()))
    module.train()
    progress = _Progress(done, last)
    for number in range(done + 1, last + 1):
        if early_stopping is not None and _no_longer_rises(training_log, early_stopping.patience):
            break
        started = time.perf_counter()
        sums = loop.accumulate(steps[number - 1])
        rate = float(schedule.get_last_lr()[0])
        if not math.isfinite(sums.loss + sums.gradient_norm):
            raise _diverged(f"step {number} of {last}", str(sums), rate, setup)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        row = [number, round(sums.loss, 6), rate, sums.tokens, sums.targets]
        training_log.add(row, seconds=time.perf_counter() - started)
        progress.show(training_log)
        if early_stopping is not None and (number % early_stopping.every == 0 or number == last):
            _evaluate(module, early_stopping, number, training_log, checkpoint)
        if accelerator.is_main_process and (number % params.checkpoint_every == 0 or number == last):
            checkpoint.save(number, training_log)
    if early_stopping is not None:
        checkpoint.take_best()
    if not all(bool(p.isfinite().all()) for p in named.values()):
        raise _diverged(f"after step {last}", "weights that are not finite", params.learning_rate, setup)
    progress.close(training_log)
    return training_log


def _diverged(where: str, found: str, rate: float, setup: TrainingSetup) -> TrainingError:
    """What to tell of a training that left the finite numbers; `rate`: the learning rate by then."""
    highest, section = setup.params.learning_rate, setup.section
    return TrainingError(
        f"{section}, {where}",
        f"{found} at learning rate {rate:g}: the training has diverged",
        "finite numbers",
        f"lower {section}.learning_rate (it is {highest:g}), to a tenth say, or raise {section}.warmup_share",
    )


@dataclass(frozen=True)
class _Sums:
    """Loss, tokens, targets and, before it was clipped, the gradient's norm of a step."""

    loss: float
    tokens: int
    targets: int
    gradient_norm: float

    def __str__(self) -> str:
        return f"loss {self.loss:g}, gradient norm {self.gradient_norm:g}"


@dataclass(frozen=True)
class _Loop:
    """Forward and backward passes of optimizer steps."""

    module: TargetLogits
    sequences: SequenceOf[Sequence]
    setup: TrainingSetup
    accelerator: Accelerator
    trainable: list[torch.nn.Parameter]

    def accumulate(self, step: list[IntArray]) -> _Sums:
        """Leave the clipped gradients of a step in the parameters."""
        weight_total = float(sum(self.sequences[i].weights.sum() for micro in step for i in micro))
        losses, tokens, targets = [], 0, 0
        for micro in step[self.accelerator.process_index :: self.accelerator.num_processes]:
            sequences = [self.sequences[i] for i in micro]
            batch = collate(sequences, self.setup.pad_id).to(self.setup.runtime.device)
            loss = batch_nll(self.module, batch, self.setup.logits, weight_total)
            self.accelerator.backward(loss)
            losses.append(loss.detach())
            tokens, targets = tokens + batch.n_tokens, targets + len(batch.labels)
        device = self.setup.runtime.device
        sums = torch.tensor((0, tokens, targets), dtype=torch.float64, device=device)
        sums[0] = sum(loss.double() for loss in losses)
        sums = self._over_processes(sums)
        norm = torch.nn.utils.clip_grad_norm_(self.trainable, 1.0)
        # The only place where the device is waited for: once per step, not per micro-batch.
        total, tokens, targets, gradient_norm = torch.cat([sums, norm[None].to(sums)]).tolist()
        return _Sums(total, int(tokens), int(targets), gradient_norm)

    def _over_processes(self, sums: torch.Tensor) -> torch.Tensor:
        """Add up the gradients, in place, and the sums of all processes.

        The loss of a micro-batch is divided by the weights of the whole step, so the sum is the step's gradient.
        DistributedDataParallel would wait for ever where the micro-batches of a step, such as the last one, do not
        divide evenly among the processes.
        """
        if self.accelerator.num_processes == 1:
            return sums
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.trainable]
        flat = self.accelerator.reduce(torch.cat([g.flatten() for g in gradients]), "sum")
        for p, part in zip(self.trainable, flat.split([p.numel() for p in self.trainable]), strict=True):
            p.grad = part.view_as(p)
        reduced: torch.Tensor = self.accelerator.reduce(sums, "sum")
        return reduced


class _Progress:
    """A bar on a terminal, and ten lines in the log."""

    def __init__(self, done: int, last: int) -> None:
        self.done, self.last, self.began = done, last, time.perf_counter()
        self.bar = tqdm(total=last, initial=done, unit="step", disable=None, desc="train")

    def show(self, training_log: TrainingLog) -> None:
        """Tell of the latest step."""
        number, loss = int(training_log.rows[-1][0]), training_log.rows[-1][1]
        speed = training_log.tokens_per_s[-1]
        self.bar.update()
        self.bar.set_postfix(loss=f"{loss:.3f}", tokens_s=f"{speed:.0f}")
        if number % max(1, self.last // 10) == 0:
            left = (self.last - number) * (time.perf_counter() - self.began) / (number - self.done)
            message = "step %d of %d, loss %.3f, %.0f tokens/s, %.0f s left"
            log.info(message, number, self.last, loss, speed, left)

    def close(self, training_log: TrainingLog) -> None:
        """Sum the training up."""
        self.bar.close()
        rows, padding = training_log.rows, 100 * training_log.padding_share
        message = "trained %d steps, loss %.3f -> %.3f, %.1f %% padding"
        log.info(message, len(rows), rows[0][1], rows[-1][1], padding)


def _no_longer_rises(training_log: TrainingLog, patience: int) -> bool:
    """Whether none of the last `patience` evaluations was better than the best one before them."""
    steps = [step for step, _ in training_log.evaluations]
    return bool(steps) and len(steps) - 1 - steps.index(training_log.best_step) >= patience


def _evaluate(
    module: TargetLogits, early_stopping: EarlyStopping, step: int, training_log: TrainingLog, checkpoint: Checkpoint
) -> None:
    """Evaluate, and remember the weights if they are the best so far."""
    module.eval()
    training_log.evaluations.append((step, early_stopping.metric()))
    module.train()
    if training_log.best_step == step:
        checkpoint.keep_best()
    log.info("step %d: metric %.4f, best at step %d", *training_log.evaluations[-1], training_log.best_step)


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
    return LambdaLR(optimizer, lambda step: min((step + 1) / (warmup + 1), (total - step) / (total - warmup + 1e-9)))
