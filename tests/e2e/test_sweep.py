"""A declared experiment on the real graph: nothing is trained, and a kill changes nothing."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.e2e.conftest import copy_of
from tests.e2e.project import Project

pytestmark = pytest.mark.slow

TRIAL = {
    "name": "trial",
    "question": "How confident must a synthetic interaction be?",
    "fixed": {"fuse.arms": ["real", "llm_i2i"], "train_i2i.models": ["swing"]},
    "grid": {"fuse.threshold": [0.2, 1.0]},
    "variants": {"half": {"fuse.selection": "custom", "fuse.custom.mode": "volume", "fuse.custom.pairs_per_user": 1.0}},
    "generator_alone": True,
    "x": "synthetic_kept",
}
RESULTS = Path("reports", "experiments", "trial")
SHOWN = ("table.csv", "README.md", "results.json", "trial-overall.svg")


def declare(project: Project) -> None:
    (project.root / "experiments").mkdir()
    (project.root / "experiments" / "trial.yaml").write_text(yaml.safe_dump(TRIAL), encoding="utf-8")


def kill_in_the_second_point(project: Project) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines", "sweep", "trial"],
        cwd=project.root,
        env=project.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    points, end = project.root / RESULTS / "points", time.monotonic() + 240
    try:
        while not (list(points.glob("*.json")) and list(points.glob("*.log"))):
            assert process.poll() is None, "the sweep ended before its second point began"
            assert time.monotonic() < end, "the second point did not begin"
            time.sleep(0.05)
        time.sleep(3)  # well inside the point
        assert process.poll() is None
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_threshold_sweep_trains_nothing_and_survives_a_kill(finished: Project, tmp_path: Path) -> None:
    killed, whole = copy_of(finished, tmp_path / "killed"), copy_of(finished, tmp_path / "whole")
    declare(killed)
    declare(whole)
    before = whole.run("git", "status", "--porcelain", "--untracked-files=no").stdout
    whole.pipeline("sweep", "trial")
    assert whole.run("git", "status", "--porcelain", "--untracked-files=no").stdout == before
    assert whole.repro() == []

    kill_in_the_second_point(killed)
    assert not (killed.root / RESULTS / "table.csv").exists()
    resumed = killed.pipeline("sweep", "trial").stderr
    assert resumed.count(" ran ") == 2, "the first point is not run again"
    for name in SHOWN:
        assert (killed.root / RESULTS / name).read_bytes() == (whole.root / RESULTS / name).read_bytes(), name

    ran = json.loads((whole.root / RESULTS / "stages.json").read_text(encoding="utf-8"))
    stages = {stage.split("@")[0] for found in ran["stages_run"].values() for stage in found}
    assert {"fuse", "evaluate"} <= stages <= {"fuse", "train_i2i", "evaluate"}
    assert ran["llm_trainings"] == 0
    results = json.loads((whole.root / RESULTS / "results.json").read_text(encoding="utf-8"))
    assert list(results["failures"]) == ["fuse.threshold=1.0"]
    assert "none of" in results["failures"]["fuse.threshold=1.0"]

    kept = {row["point"]: row["synthetic_kept"] for row in results["rows"] if row["arm"] == "llm_i2i"}
    assert kept["fuse.threshold=0.2"] > 0
    assert kept["half"] > 0
    # The table's numbers are those of the run itself.
    alone = json.loads((whole.root / "reports/metrics/generator-llm_only.json").read_text())["overall"]["recall@10"]
    (row,) = {(row["point"], row["value"]) for row in results["rows"]
              if (row["arm"], row["slice"], row["metric"]) == ("llm_only", "overall", "recall@10")}  # fmt: skip
    assert row == ("every point", pytest.approx(alone, abs=1e-6))

    again = whole.pipeline("sweep", "trial").stderr
    assert again.count(" ran ") == 1, "only the point that failed is tried again"


def test_a_broken_point_stops_before_anything_runs(branch: Project) -> None:
    declare(branch)
    path = branch.root / "experiments" / "trial.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace("0.2", "2.0"), encoding="utf-8")
    done = branch.pipeline("sweep", "trial", ok=False)
    assert done.returncode == 2
    assert "fuse.threshold=2.0" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (branch.root / "reports" / "experiments").exists()
