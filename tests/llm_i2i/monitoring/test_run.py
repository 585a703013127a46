"""Earlier runs out of git, in a repository of its own, and the command that compares with them."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from llm_i2i.errors import ArtifactError
from llm_i2i.monitoring.run import MONITOR, earlier_runs, watch_run
from pipelines.__main__ import main
from tests.conftest import ROOT
from tests.llm_i2i.monitoring.shop import PARAMS

LEFT = PARAMS.monitor.runs + 3


def run(rows: int, **facts: float) -> dict:
    sketch = {"users": ["00" * 256], "items": ["0123456789abcdef 0000"]}
    return {"facts": {"rows": rows, "users": 10, **facts}, "series": {"data": "a", "recipe": "b"}, "sketch": sketch}


def git(*words: str) -> None:
    subprocess.run(["git", "-c", "user.name=t", "-c", "user.email=t@t", *words], check=True, capture_output=True)


def write(content: dict) -> None:
    MONITOR.parent.mkdir(exist_ok=True)
    MONITOR.write_text(json.dumps(content), encoding="utf-8")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run a day, committed, one of them changed nothing."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "profiles", "profiles")
    shutil.copy2(ROOT / "params.yaml", ".")
    git("init", "--quiet")
    for day in range(LEFT):
        write(run(1000 + day))
        git("add", "--all")
        git("commit", "--quiet", "--message", f"day {day}")
    git("commit", "--quiet", "--allow-empty", "--message", "seeds")
    return tmp_path


def test_earlier_runs_come_out_of_git_the_newest_first_without_the_run_itself(project):
    committed, new = run(1000 + LEFT - 1), run(5000)
    assert [one["facts"]["rows"] for one in earlier_runs(committed, 3)] == [1000 + LEFT - n for n in (2, 3, 4)]
    assert [one["facts"]["rows"] for one in earlier_runs(new, 2)] == [1000 + LEFT - n for n in (1, 2)]
    assert watch_run(PARAMS).n_data == PARAMS.monitor.runs


def test_the_command_shows_every_fact_and_says_what_lies_beyond(project, capsys):
    assert main(["monitor"]) == 0
    shown = capsys.readouterr().out
    assert "no alarm" in shown
    assert f"against {PARAMS.monitor.runs} earlier run(s) of this data" in shown
    write(run(200, duplicates=0.5))
    assert main(["monitor"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["fact", "this", "run"]
    assert [line.split(":")[0] for line in lines if line.startswith("ALARM")] == [
        "ALARM interactions", "ALARM interactions that occur twice",
    ]  # fmt: skip


def test_without_git_there_is_no_earlier_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ArtifactError, match="no such file"):
        watch_run(PARAMS)
    write(run(1))
    found = watch_run(PARAMS)
    assert (found.n_data, found.alarms) == (0, ())
