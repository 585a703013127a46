"""What every step shares: a lock, one log line, runtime facts, and the ZenML run's metadata.

With `LLM_I2I_ZENML=off` the very same functions run without ZenML, in a third of the start-up time.
"""

import functools
import gc
import inspect
import logging
import os
import re
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from llm_i2i.files import content_md5, is_first_process, remove, write_json, write_text
from llm_i2i.git import git_revision
from llm_i2i.params import read_params
from llm_i2i.stages import instance_name
from steps.description import Description
from steps.paths import CHECKPOINTS, LOCKS, RUNTIME

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """What a step's body wrote and measured.

    Attributes:
        outputs: Files or folders written.
        rows: Rows of the main table; None if there is none.
        metrics: Numbers worth comparing between runs.
        runtime: Facts that differ from run to run (device, tokens/s): never part of an output.
    """

    outputs: tuple[Path, ...]
    rows: int | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    runtime: Mapping[str, Any] = field(default_factory=dict)


def zenml_is_on() -> bool:
    """Whether steps and pipelines run in ZenML: yes, unless LLM_I2I_ZENML is off, and in the first process only."""
    return os.environ.get("LLM_I2I_ZENML", "on") != "off" and is_first_process()


def stage_step(body: Callable[..., Outcome]) -> Callable[..., Any]:
    """Turn a body that returns an `Outcome` into the step of the stage of the same name.

    Keyword arguments of the body are the keys of the stage's matrix. The step returns a `Description`.
    """
    stage = body.__name__

    @functools.wraps(body)
    def run(**matrix: str) -> Description:
        name = instance_name(stage, matrix)
        if not is_first_process():
            # It only lends its device: the lock is the first process's, and so are outputs and facts.
            body(**matrix)
            return Description(name, {}, None)
        with only_one(name):
            started = time.perf_counter()
            with collecting_garbage():
                outcome = body(**matrix)
            seconds = time.perf_counter() - started
            remove(CHECKPOINTS / name)
        description = Description(name, {str(path): content_md5(path) for path in outcome.outputs}, outcome.rows)
        _write_runtime(name, seconds, outcome)
        if zenml_is_on():
            _log_to_zenml(stage, matrix, outcome, description)
        logger.info("%s: wrote %s in %.1f s", name, ", ".join(description.outputs), seconds)
        return description

    signature = inspect.signature(body)
    run.__signature__ = signature.replace(return_annotation=Description)  # type: ignore[attr-defined]
    return plain_step(run)


def plain_step(run: Callable[..., Description]) -> Callable[..., Any]:
    """Make a function that returns a description a ZenML step; with ZenML off it stays a function."""
    if not zenml_is_on():
        return run
    from zenml import step  # noqa: PLC0415 - a second and a half, only where it is used

    from steps.materializer import DescriptionMaterializer  # noqa: PLC0415

    return step(enable_cache=False, output_materializers=DescriptionMaterializer)(run)


@contextmanager
def collecting_garbage() -> Iterator[None]:
    """Collect garbage while a step works, even if the program around it has turned that off."""
    was_on = gc.isenabled()
    if not was_on:
        gc.freeze()  # what is there by now stays
        gc.enable()
    try:
        yield
    finally:
        if not was_on:
            gc.disable()


@contextmanager
def only_one(name: str, *, part: str = "") -> Iterator[None]:
    """Wait until no other process runs this stage: when dvc is killed, the stage it started keeps running.

    Args:
        name: The stage's, as in DVC.
        part: Such as 3/16: other parts may run then, but neither the stage nor the same part.
    """
    LOCKS.mkdir(parents=True, exist_ok=True)
    lock = _locked(LOCKS / f"{name}.lock", name)
    if part:
        whole, lock = lock, _locked(LOCKS / f"{name}.part-{part.replace('/', '-of-')}.lock", name)
        whole.release()
    else:
        for path in LOCKS.glob(f"{name}.part-*.lock"):
            _locked(path, name).release()
    try:
        yield
    finally:
        lock.release()


def _locked(path: Path, name: str) -> FileLock:
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        logger.warning("%s: another process runs this stage; waiting for it to end", name)
        lock.acquire()
    return lock


def _write_runtime(name: str, seconds: float, outcome: Outcome) -> None:
    """Write reports/runtime/NAME.json, and the speed by training step as NAME.csv where there is one."""
    facts = dict(outcome.runtime)
    speeds = facts.pop("tokens_per_s_by_step", None)
    if speeds:
        # A resumed training measures only its own, last steps; the log it wrote has all of them.
        with (outcome.outputs[0] / "training.csv").open(encoding="utf-8") as log:
            first = sum(1 for _ in log) - len(speeds)
        lines = ["step,tokens_per_s", *(f"{first + i},{speed:.1f}" for i, speed in enumerate(speeds))]
        write_text("\n".join(lines) + "\n", RUNTIME / f"{name}.csv")
    measured = {"stage": name, "seconds": round(seconds, 2), "peak_memory_mb": _peak_memory_mb()}
    write_json({**facts, **measured}, RUNTIME / f"{name}.json")


def _peak_memory_mb() -> float:
    """Peak resident memory of this process in MiB; the system counts in bytes on macOS, else in KiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1 << 20 if sys.platform == "darwin" else 1 << 10), 1)


def _inputs(stage: str, matrix: Mapping[str, str]) -> Iterator[Path]:
    """What dvc.yaml says a stage reads besides code; of a file in another stage's output, that output."""
    stages = yaml.safe_load(Path("dvc.yaml").read_text(encoding="utf-8"))["stages"]
    outs = {out for other in stages.values() for out in other.get("outs", [])}
    for dep in stages[stage]["deps"]:
        if not dep.startswith(("src/", "steps/")):
            path = Path(re.sub(r"\$\{item\.(\w+)\}", lambda found: matrix[found[1]], dep))
            yield next((place for place in (path, *path.parents) if place.as_posix() in outs), path)


def _log_to_zenml(stage: str, matrix: Mapping[str, str], outcome: Outcome, description: Description) -> None:
    """Log params section, content hashes, git revision and metrics to the ZenML run."""
    from zenml import log_metadata  # noqa: PLC0415

    params = read_params()
    log_metadata(
        {
            "params": {"seed": params["seed"], stage: params.get(stage, {})},
            "inputs": {str(path): content_md5(path) for path in _inputs(stage, matrix) if path.exists()},
            "outputs": dict(description.outputs),
            "git_revision": git_revision(),
            "metrics": dict(outcome.metrics),
        }
    )
