"""Measure the model of section gate under every seed of the gate; results go to reports/seeds/, for git to keep.

Each seed is a `dvc exp run --temp` of everything that leads to the model's evaluation, the LLM's trainings
included: the generator's seed is what varies most. The workspace's own seed costs nothing. A seed measured under
the same code, data and parameters is not measured again.
"""

import json
import logging
import shutil
import subprocess
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from llm_i2i.errors import ArtifactError
from llm_i2i.evaluation.experiments import digest
from llm_i2i.evaluation.gate import Side
from llm_i2i.files import content_md5, staged, write_json
from llm_i2i.params import Params, load_params, read_params
from llm_i2i.schema import PER_USER, read_table
from pipelines.lab.sweep import code_digest
from steps.dvc import Revision, dvc, experiment_ref
from steps.paths import EVALUATION, METRICS, SEEDS

logger = logging.getLogger(__name__)

# Keys that decide nothing about a model's evaluation; the seed is told beside.
NOT_PART = ("gate", "profile", "report", "seed")


def replicate() -> None:
    """Measure the seeds that are missing or stale.

    Raises:
        ArtifactError: The workspace's own results are not those that dvc.lock records.
        LlmI2iError: dvc failed.
    """
    params = load_params()
    run = run_name(params)
    for seed in params.gate.seeds:
        if _is_current(run, seed, params):
            continue
        identity = identity_of(seed)
        logger.info("replicate: measuring %s under seed %d", run, seed)
        if seed == params.seed:
            table, metrics = _own(run)
        else:
            table, metrics = _measured(run, seed, identity)
        with staged(SEEDS / run / f"{seed}.parquet") as out:
            shutil.copyfile(table, out)
        write_json({"seed": seed, "identity": identity, "metrics": metrics}, SEEDS / run / f"{seed}.json")


def run_name(params: Params) -> str:
    """MODEL-ARM of section gate."""
    return f"{params.gate.model}-{params.gate.arm}"


def identity_of(seed: int) -> str:
    """Digest of all that decides an evaluation under a seed."""
    deciding = {key: value for key, value in read_params().items() if key not in NOT_PART}
    return digest({"params": deciding, "code": code_digest(), "seed": seed})


def candidate_side(params: Params) -> Side:
    """What the workspace measured; seeds without results are left out."""
    run = run_name(params)
    metrics, tables, stale = {}, {}, []
    for seed in params.gate.seeds:
        path = SEEDS / run / f"{seed}.parquet"
        record = _record(run, seed)
        if not record or not path.is_file():
            continue
        metrics[seed], tables[seed] = record["metrics"], read_table(path, PER_USER)
        if not _is_current(run, seed, params):
            stale.append(seed)
    return Side(metrics, tables, tuple(stale))


def champion_side(commit: str, params: Params) -> Side:
    """What another commit holds of the same seeds, out of git alone: whichever model served then."""
    text = _git_show(commit, "params.yaml")
    gate = (yaml.safe_load(text or b"") or {}).get("gate", {})
    run = f"{gate.get('model')}-{gate.get('arm')}"
    metrics, tables = {}, {}
    for seed in params.gate.seeds:
        record = _git_show(commit, f"{SEEDS.as_posix()}/{run}/{seed}.json")
        table = _git_show(commit, f"{SEEDS.as_posix()}/{run}/{seed}.parquet")
        if record is not None and table is not None:
            metrics[seed] = json.loads(record)["metrics"]
            tables[seed] = pd.read_parquet(BytesIO(table))
    return Side(metrics, tables)


def _record(run: str, seed: int) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads((SEEDS / run / f"{seed}.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return content


def _is_current(run: str, seed: int, params: Params) -> bool:
    """Whether a seed was measured as everything is now; the workspace's own seed as dvc.lock has it."""
    path = SEEDS / run / f"{seed}.parquet"
    if not path.is_file() or _record(run, seed).get("identity") != identity_of(seed):
        return False
    return seed != params.seed or content_md5(path) == locked_md5(EVALUATION / f"{run}.parquet")


def _own(run: str) -> tuple[Path, dict[str, Any]]:
    """The workspace's evaluation."""
    table, metrics = EVALUATION / f"{run}.parquet", METRICS / f"{run}.json"
    for path in (table, metrics):
        if not path.is_file() or content_md5(path) != locked_md5(path):
            raise ArtifactError(str(path), "is not what dvc.lock records", fix="run `dvc repro`")
    return table, json.loads(metrics.read_text(encoding="utf-8"))


def _measured(run: str, seed: int, identity: str) -> tuple[Path, dict[str, Any]]:
    """Run one seed as a DVC experiment, unless there is one from before."""
    name = f"seed-{seed}-{identity}"
    if experiment_ref(name) is None:
        dvc("exp", "run", "--temp", "--name", name, "--set-param", f"seed={seed}", "evaluate")
    ref = experiment_ref(name)
    if ref is None:
        raise ArtifactError(f"seed {seed}", "dvc exp run left no experiment", fix="run `dvc exp show`")
    revision = Revision(ref)
    return revision.output(f"{EVALUATION.as_posix()}/{run}.parquet"), revision.json(
        f"{METRICS.as_posix()}/{run}.json"
    )


def locked_md5(path: Path) -> str | None:
    """What dvc.lock records of an output; None if nothing."""
    try:
        lock = yaml.safe_load(Path("dvc.lock").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    outs = (out for stage in lock["stages"].values() for out in stage.get("outs", []))
    return next((out["md5"] for out in outs if out["path"] == path.as_posix()), None)


def _git_show(commit: str, path: str) -> bytes | None:
    """Bytes of a tracked file; None if the commit does not have it."""
    done = subprocess.run(["git", "show", f"{commit}:./{path}"], capture_output=True, check=False)  # noqa: S603, S607
    return done.stdout if done.returncode == 0 else None
