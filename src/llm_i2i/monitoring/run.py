"""A run's facts and sketch as one small document, and those of earlier runs out of git."""

import json
from pathlib import Path

from llm_i2i import schema
from llm_i2i.data.sources import read_raw
from llm_i2i.errors import ArtifactError
from llm_i2i.files import json_sha256, read_json
from llm_i2i.git import git
from llm_i2i.monitoring.drift import Run, Watch, watch
from llm_i2i.monitoring.facts import run_facts
from llm_i2i.monitoring.sketch import sketch_of
from llm_i2i.params import Params

MONITOR = Path("reports/monitor.json")


def describe(root: Path, params: Params, *, data_name: str) -> Run:
    """Read the run in a project folder; what it does not have (a generator, the gate's arm) is left out.

    Args:
        root: The project folder.
        params: Its parameters.
        data_name: What the raw data is called; under another name a new series begins.

    Returns:
        facts (by name, see `drift.FACTS`), series (what runs must share to compare), sketch, and index: the content
        hash of the index described, None where there is none.

    Raises:
        DataError: The raw tables cannot be read.
        ArtifactError: An artifact is malformed.
    """
    raw = read_raw(root / "data", encoded=True)
    arm, name = params.gate.arm, f"{params.gate.model}-{params.gate.arm}"
    parts = {
        "synthesis": "artifacts/proposed/generator.json",
        "kept": f"artifacts/fused/{arm}.json",
        "metrics": f"reports/metrics/{name}.json",
        "manifest": f"artifacts/i2i/{name}/manifest.json",
    }
    read = {part: read_json(root / path) if (root / path).is_file() else None for part, path in parts.items()}
    manifest = read.pop("manifest") or {}
    index = schema.read_table(root / "artifacts/i2i" / name / "index.parquet", schema.INDEX) if manifest else None
    same_data = [data_name, params.split.model_dump(mode="json"), params.seed]
    same_recipe = [*same_data, name, params.fuse.model_dump(mode="json"), manifest.get("params")]
    users = raw.interactions[schema.USER_ID].cat.categories.to_series()
    return {
        "facts": run_facts(raw, index=index, **read),
        "index": manifest.get("content_sha256"),
        "series": {"data": json_sha256(same_data)[:16], "recipe": json_sha256(same_recipe)[:16]},
        "sketch": sketch_of(users, raw.items, index),
    }


def earlier_runs(now: Run, n: int) -> list[Run]:
    """What the last commits that changed reports/monitor.json say, the newest first, without the run itself.

    Args:
        now: The run, committed already or not.
        n: How many at most.
    """
    commits = (git("log", f"--max-count={n + 1}", "--format=%H", "--", str(MONITOR)) or "").split()
    texts = [git("show", f"{commit}:./{MONITOR}") for commit in commits]
    runs: list[Run] = [json.loads(text) for text in texts if text]
    return (runs[1:] if runs and runs[0] == now else runs)[:n]


def watch_run(params: Params) -> Watch:
    """Compare this folder's run with earlier ones.

    Raises:
        ArtifactError: Stage report has not described it.
    """
    if not MONITOR.is_file():
        raise ArtifactError(str(MONITOR), "no such file", fix="run `dvc repro report`")
    now: Run = read_json(MONITOR, fix="run `dvc repro report`")
    # One more than is compared with: what changed since a run needs the run before it.
    return watch(now, earlier_runs(now, params.monitor.runs + 1), params.monitor)
