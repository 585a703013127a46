"""What every check of benchmarks/gpu.py is given, and what it yields."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch

from llm_i2i.llm.engine.base_model import prepare_base_model
from llm_i2i.llm.engine.device import Runtime
from llm_i2i.params import Params, read_profile

ROOT = Path(__file__).parents[1]


class Result(NamedTuple):
    """One row of the table; `holds` is None where nothing is demanded."""

    what: str
    value: float | None = None
    unit: str = ""
    holds: bool | None = None
    note: str = ""


@dataclass(frozen=True)
class Context:
    """Where checks run.

    Attributes:
        runtime: Device and compute dtype: bf16 on CUDA, fp32 on the CPU.
        small: Tiny models and catalogues.
        folder: For files.
    """

    runtime: Runtime
    small: bool
    folder: Path

    @property
    def on_gpu(self) -> bool:
        """Whether there is a device to wait for."""
        return self.runtime.device.type == "cuda"

    @property
    def memory_gb(self) -> float | None:
        """Of the device."""
        return torch.cuda.get_device_properties(self.runtime.device).total_memory / 1e9 if self.on_gpu else None

    @cached_property
    def params(self) -> Params:
        """Profile gpu."""
        return Params.model_validate({**read_profile("gpu", ROOT), "profile": "gpu"})

    @cached_property
    def base_model(self) -> Path:
        """A folder with a tiny random model and a tokenizer of bytes, as stage base_model writes it."""
        source = self.params.base_model.model_copy(update={"source": "random"})
        prepare_base_model(source, seed=7, out=self.folder / "base_model", downloads=self.folder)
        return self.folder / "base_model"

    def seconds(self, run: Callable[[], Any]) -> tuple[Any, float]:
        """Result and wall seconds of a call, all its work on the device included."""
        self.wait()
        started = time.perf_counter()
        result = run()
        self.wait()
        return result, time.perf_counter() - started

    def wait(self) -> None:
        """For the device."""
        if self.on_gpu:
            torch.cuda.synchronize(self.runtime.device)

    def peak_gb(self) -> float | None:
        """Most memory that torch held since the last call."""
        if not self.on_gpu:
            return None
        peak = torch.cuda.max_memory_allocated(self.runtime.device) / 1e9
        torch.cuda.reset_peak_memory_stats(self.runtime.device)
        return peak
