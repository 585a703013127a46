"""What a training keeps: the log of its steps, and a state from which a killed run resumes to the same weights."""

import hashlib
import logging
import os
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR

from llm_i2i.files import staged, write_csv, writing
from llm_i2i.llm.engine.batches import Sequence
from llm_i2i.params import LlmTraining

log = logging.getLogger(__name__)
LOG_COLUMNS = ("step", "loss", "learning_rate", "tokens", "targets")
Weights = dict[str, torch.Tensor]


@dataclass
class TrainingLog:
    """What a training reports.

    Attributes:
        rows: One per step, `LOG_COLUMNS`: the same in every run on one machine.
        tokens_per_s: One per step of this process; differs from run to run.
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
        write_csv(path, LOG_COLUMNS, self.rows)

    def facts(self, seconds: float) -> dict[str, Any]:
        """Runtime facts of a training of `seconds`: they differ between runs and stay out of the artifacts."""
        tokens = sum(row[3] for row in self.rows[len(self.rows) - len(self.tokens_per_s) :])
        return {
            "training_seconds": round(seconds, 1),
            "tokens_per_s": round(tokens / seconds, 1) if seconds > 0 else 0.0,
            "tokens_per_s_by_step": self.tokens_per_s,
            "padding_share": round(self.padding_share, 4),
            "threads": torch.get_num_threads(),
            "processes": int(os.environ.get("WORLD_SIZE", "1")),
        }


def training_fingerprint(sequences: SequenceOf[Sequence], params: LlmTraining, *, seed: int, last_step: int) -> str:
    """SHA-256 of everything that determines a training on one machine."""
    digest = hashlib.sha256(f"{params.model_dump_json()}{seed}/{last_step}".encode())
    for sequence in sequences:
        arrays = (sequence.ids, sequence.blocks, sequence.labels, sequence.weights, sequence.nodes)
        for array in (a for a in arrays if a is not None):
            digest.update(array.tobytes())
    return digest.hexdigest()


class Checkpoint:
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
        """Remember the present weights."""
        self.best = {name: p.detach().clone() for name, p in self.named.items()}

    def take_best(self) -> None:
        """Put the remembered weights into the model."""
        self._load(self.best)

    def save(self, step: int, training_log: TrainingLog) -> None:
        """Write the state after `step` steps."""
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
        # Given a path, torch would write its name into the file, which is another one for every process.
        with staged(self.path) as partial, writing(self.path, kinds=Exception), partial.open("wb") as file:
            torch.save(state, file)

    def restore(self, training_log: TrainingLog) -> int:
        """Load the state if it belongs to this very training; returns the number of steps done."""
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
