"""Which device and compute dtype the LLM stages use."""

import ctypes
import logging
import os
from dataclasses import dataclass
from typing import Any

import torch

from llm_i2i.errors import ParamsError
from llm_i2i.files import are_several
from llm_i2i.params import RuntimeParams

log = logging.getLogger(__name__)
# mallopt(3) of the GNU C library: parameter numbers, and the largest block that stays with the process.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _KEPT = -1, -3, 1 << 30


@dataclass(frozen=True)
class Runtime:
    """A resolved device.

    Attributes:
        device: `cpu` or `cuda`.
        dtype: Compute dtype of weights and activations.
    """

    device: torch.device
    dtype: torch.dtype

    @property
    def facts(self) -> dict[str, str]:
        """Device and precision, recorded beside every LLM artifact."""
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu"
        return {"device": name, "precision": str(self.dtype).removeprefix("torch.")}

    @property
    def usage(self) -> dict[str, Any]:
        """`facts`, and on CUDA the peak device memory in MiB since the start of the process."""
        if self.device.type != "cuda":
            return dict(self.facts)
        return {**self.facts, "peak_device_memory_mb": torch.cuda.max_memory_allocated(self.device) / 2**20}


def cores() -> int:
    """CPU cores this process may use: a container or `taskset` may allow fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def resolve_runtime(params: RuntimeParams) -> Runtime:
    """Choose device and dtype, and set the number of CPU threads.

    bf16 is chosen where the hardware computes in it: CUDA devices from compute capability 8.0, CPUs with
    AVX512-BF16 or AMX. Elsewhere it would be emulated and slower than fp32.

    Raises:
        ParamsError: `runtime.device` is cuda and there is none.
    """
    if params.device == "cuda" and not torch.cuda.is_available():
        raise ParamsError("runtime.device", "cuda, but torch sees no CUDA device", fix="use auto or cpu")
    use_cuda = params.device != "cpu" and torch.cuda.is_available()
    torch.set_num_threads(params.threads or cores())
    if not use_cuda:
        _keep_freed_memory()
    if params.precision == "auto":
        fast = torch.cuda.is_bf16_supported(including_emulation=False) if use_cuda else _cpu_has_bf16()
        dtype = torch.bfloat16 if fast else torch.float32
    else:
        dtype = {"bf16": torch.bfloat16, "fp32": torch.float32}[params.precision]
    # With several processes on one machine (`accelerate launch`) each takes its own device.
    number = int(os.environ.get("LOCAL_RANK", "0")) if are_several() else 0  # other programs set LOCAL_RANK too
    own = torch.device("cuda", number) if use_cuda else torch.device("cpu")
    runtime = Runtime(own, dtype)
    log.info("device %(device)s, compute dtype %(precision)s", runtime.facts)
    return runtime


def _keep_freed_memory() -> None:
    """Let freed blocks stay with the process.

    By default the GNU C library returns blocks as large as the logits to the kernel, which then clears every page
    again at the next batch: a third of the compact backbone's training time. Other C libraries have no such switch.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _KEPT)
        mallopt(_M_TRIM_THRESHOLD, _KEPT)


def _cpu_has_bf16() -> bool:
    # torch has no public function for this; a CPU without the instruction falls back to fp32.
    cpu = torch.cpu
    return bool(cpu._is_avx512_bf16_supported() or cpu._is_amx_tile_supported())  # noqa: SLF001
