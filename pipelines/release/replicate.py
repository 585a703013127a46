"""Measure the model of section gate under every seed of the gate; git keeps the results, in reports/seeds/.

Each seed is a `dvc exp run --temp` of everything that leads to the model's evaluation, the LLM's trainings
included: the generator's seed is what varies most. The workspace's own seed costs nothing. A seed measured under
the same code, data and parameters is not measured again.
"""

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd

from llm_i2i.dvc import Revision, dvc, experiment_ref, locked_md5
from llm_i2i.errors import ArtifactError
from llm_i2i.evaluation.experiments import digest
from llm_i2i.evaluation.gate import Side
from llm_i2i.files import content_md5, copy_file, read_json, write_json
from llm_i2i.git import git_bytes
from llm_i2i.params import Params, load_params, read_params
from llm_i2i.registry import run_at
from pipelines.lab.sweep import code_digest
from steps.paths import EVALUATION, METRICS, SEEDS

logger = logging.getLogger(__name__)

# Keys that decide nothing about a model's evaluation; the seed is recorded separately.
NOT_PART = ("gate", "model_card", "monitor", "profile", "report", "seed")


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
        copy_file(table, SEEDS / run / f"{seed}.parquet")
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
    side = _side(run, params, lambda path: path.read_bytes() if path.is_file() else None)
    return replace(side, stale=tuple(seed for seed in side.metrics if not _is_current(run, seed, params)))


def champion_side(commit: str, params: Params) -> Side:
    """What another commit holds of the same seeds, read from git alone, for whichever model that commit names."""
    return _side(run_at(commit), params, lambda path: git_bytes("show", f"{commit}:./{path.as_posix()}"))


def _side(run: str, params: Params, read: Callable[[Path], bytes | None]) -> Side:
    """Results of the gate's seeds; those of which a file cannot be read are left out."""
    metrics, tables = {}, {}
    for seed in params.gate.seeds:
        record, table = (read(SEEDS / run / f"{seed}.{kind}") for kind in ("json", "parquet"))
        if record is not None and table is not None:
            metrics[seed] = json.loads(record)["metrics"]
            tables[seed] = pd.read_parquet(BytesIO(table))
    return Side(metrics, tables)


def _is_current(run: str, seed: int, params: Params) -> bool:
    """Whether a seed's results are those of the present code and parameters, and the own seed's those of dvc.lock."""
    record, path = (SEEDS / run / f"{seed}.{kind}" for kind in ("json", "parquet"))
    if not record.is_file() or not path.is_file() or read_json(record)["identity"] != identity_of(seed):
        return False
    return seed != params.seed or content_md5(path) == locked_md5(EVALUATION / f"{run}.parquet")


def _own(run: str) -> tuple[Path, dict[str, Any]]:
    """The workspace's evaluation."""
    table, metrics = EVALUATION / f"{run}.parquet", METRICS / f"{run}.json"
    for path in (table, metrics):
        if not path.is_file() or content_md5(path) != locked_md5(path):
            raise ArtifactError(str(path), "is not what dvc.lock records", fix="run `dvc repro`")
    return table, read_json(metrics)


def _measured(run: str, seed: int, identity: str) -> tuple[Path, dict[str, Any]]:
    """Run one seed as a DVC experiment, unless that experiment exists already."""
    name = f"seed-{seed}-{identity}"
    if experiment_ref(name) is None:
        dvc("exp", "run", "--temp", "--name", name, "--set-param", f"seed={seed}", "evaluate")
    ref = experiment_ref(name)
    if ref is None:
        raise ArtifactError(f"seed {seed}", "dvc exp run left no experiment", fix="run `dvc exp show`")
    revision = Revision(ref)
    table, metrics = (EVALUATION / f"{run}.parquet").as_posix(), (METRICS / f"{run}.json").as_posix()
    return revision.output(table), revision.json(metrics)
