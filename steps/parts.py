"""Stages whose users several processes share: `runtime.processes` on this machine, or `--part` wherever it is started.

A part makes its shards and no output. The stage itself takes the shards that are there, makes the others and writes.
"""

import importlib
import logging
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from multiprocessing import parent_process

import torch
from torch import multiprocessing

from llm_i2i.errors import LlmI2iError
from llm_i2i.llm.engine.device import cores
from llm_i2i.llm.engine.shards import Part, PartDone, Shards
from llm_i2i.params import Params, RuntimeParams
from llm_i2i.stages import KEPT, instance_name
from steps import paths
from steps.stage import collecting_garbage, only_one

logger = logging.getLogger(__name__)
_own: ContextVar[Part | None] = ContextVar("part", default=None)


def shards(params: Params, stage: str, **matrix: str) -> Shards:
    """Where a stage's shards lie, and which of them this process makes, alone or with others."""
    folder, processes = paths.checkpoints(stage, **matrix), _processes(params.runtime)
    kept = paths.kept(stage, **matrix) if params.update.retrain_after and stage in KEPT else None
    if _own.get() or processes == 1:
        return Shards(folder, _own.get(), kept=kept)
    return Shards(folder, helpers=partial(_helpers, stage, matrix, processes), kept=kept)


def share_threads(params: Params) -> Params:
    """The same params with this process's share of the threads; how many there are changes no result."""
    threads = max(1, (params.runtime.threads or cores()) // _processes(params.runtime))
    return params.model_copy(update={"runtime": params.runtime.model_copy(update={"threads": threads})})


def run_part(stage: str, matrix: Mapping[str, str], number: int, of: int) -> None:
    """Make one part's shards, once neither the stage nor the same part runs on this machine."""
    part = Part(number, of)
    with only_one(instance_name(stage, matrix), part=str(part)), collecting_garbage():
        _make(stage, matrix, part)
    logger.info("%s: part %s is done", instance_name(stage, matrix), part)


def _make(stage: str, matrix: Mapping[str, str], part: Part) -> None:
    os.environ["LLM_I2I_ZENML"] = "off"  # there is nothing to tell it
    body = getattr(importlib.import_module(f"steps.{stage}"), stage).__wrapped__
    own = _own.set(part)
    try:
        body(**matrix)
    except PartDone:
        pass
    finally:
        _own.reset(own)


def _processes(runtime: RuntimeParams) -> int:
    """`runtime.processes`, on CUDA at most one per device: two on one would share its memory and its time."""
    if runtime.processes == 1 or runtime.device == "cpu":
        return runtime.processes
    devices = torch.cuda.device_count()
    if 0 < devices < runtime.processes:
        logger.warning("runtime.processes is %d, but a GPU serves one: %d run", runtime.processes, devices)
        return devices
    return runtime.processes


@contextmanager
def _helpers(stage: str, matrix: Mapping[str, str], of: int) -> Iterator[tuple[Part, Callable[[], None]]]:
    """Other processes for the parts from the second on; they end with this one, however it ends."""
    logging.getLogger("torch.multiprocessing.spawn").setLevel(logging.ERROR)  # one message is enough
    others = multiprocessing.start_processes(_help, (stage, matrix, of), nprocs=of - 1, join=False, daemon=True)

    def check() -> None:
        try:
            others.join(timeout=0)
        except (multiprocessing.ProcessExitedException, multiprocessing.ProcessRaisedException) as error:
            where = f"{instance_name(stage, matrix)}, part {Part(error.error_index + 2, of)}"
            code = others.processes[error.error_index].exitcode
            # Of a traceback the exception; the further lines of its message are indented.
            raised = re.split(r"\n(?=\S)", error.msg.strip())[-1]
            said = (
                raised if isinstance(error, multiprocessing.ProcessRaisedException) else error.signal_name or "silent"
            )
            expected = "every process to live until its part is done; what is finished is kept"
            fix = "mend that and run again, with a lower `runtime.processes` where memory was short"
            raise LlmI2iError(where, f"its process has died with exit code {code} ({said})", expected, fix) from error

    try:
        yield Part(1, of), check
    finally:
        # All is made, or all is lost: what they are still at, nobody needs.
        for process in others.processes:
            process.kill()
        for process in others.processes:
            process.join()


def _help(index: int, stage: str, matrix: Mapping[str, str], of: int) -> None:
    """What the process of part `index` + 2 does; torch lets its exception reach `check`."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123 - one process shows its progress
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    os.environ["CUDA_VISIBLE_DEVICES"] = seen.split(",")[index + 1] if seen and "," in seen else str(index + 1)
    _make(stage, matrix, Part(index + 2, of))


def _end_with_parent() -> None:
    """Linux ends a process with its parent, as torch asks it to; this does everywhere."""
    parent = parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)
