"""`report --against REV`: write reports/comparison.json, which the report then shows."""

import logging
from typing import Any

import pandas as pd

from llm_i2i import schema
from llm_i2i.dvc import Revision, experiment_ref
from llm_i2i.errors import ArtifactError
from llm_i2i.files import read_json, write_json
from llm_i2i.params import load_params, read_params
from llm_i2i.reporting.compare import compare_metrics, params_changes
from llm_i2i.reporting.results import main_k
from steps.paths import COMPARISON, EVALUATION, METRICS

logger = logging.getLogger(__name__)

Run = tuple[str, str]


def write(against: str) -> None:
    """Compare the workspace's results with those of a revision.

    Args:
        against: A commit, tag or branch, or the name of a DVC experiment.

    Raises:
        ArtifactError: The revision or its metrics are missing, or were measured under another protocol.
    """
    revision = Revision(experiment_ref(against) or against)
    params = load_params()
    metrics = revision.files(METRICS.as_posix())
    old = _by_run(revision.json(path) for path in metrics)
    new = _by_run(read_json(path) for path in sorted(METRICS.glob("*.json")))
    k = main_k(params.evaluate.ks)
    rows = compare_metrics(
        old,
        new,
        {run: tables for run in new if run in old and (tables := _per_user(revision, run)) is not None},
        metrics=(f"recall@{k}", f"ndcg@{k}"),
        resamples=params.report.bootstrap_resamples,
        seed=params.seed,
    )
    changes = params_changes(read_params(read=revision.text), read_params())
    content = {
        "against": against,
        "commit": revision.commit,
        "params": changes,
        "rows": rows,
        "missing": sorted("-".join(run) for run in {*old} ^ {*new}),
    }
    write_json(content, COMPARISON)
    logger.info("report: %d metrics and %d parameters compared with %s", len(rows), len(changes), against)


def clear() -> None:
    """Forget the last comparison: a plain report is about one revision."""
    COMPARISON.unlink(missing_ok=True)


def _by_run(contents: Any) -> dict[Run, dict[str, Any]]:
    return {(str(content["model"]), str(content["arm"])): content for content in contents}


def _per_user(revision: Revision, run: Run) -> tuple[pd.DataFrame, pd.DataFrame] | None:
    """Per-user ranks of both sides; None where either is missing."""
    path = EVALUATION / f"{run[0]}-{run[1]}.parquet"
    try:
        there = schema.read_table(revision.output(path.as_posix()), schema.PER_USER)
        here = schema.read_table(path, schema.PER_USER)
    except ArtifactError as error:
        logger.warning("report: no interval for %s-%s: %s", *run, error)
        return None
    return there, here
