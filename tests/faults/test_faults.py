"""Every write, flush, rename and creation fails in turn: what is there afterwards is the old state or the new one."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults import compiled

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """faults.c as a library to preload."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("needs Linux and a C compiler (Debian: apt-get install gcc)")
    return compiled(tmp_path_factory.mktemp("faults"), compiler)


def found(shim: Path, folder: Path, *arguments: str, **environment: str) -> dict[str, dict]:
    """What was found, by scenario."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults", str(folder), *arguments],
        env={**os.environ, "LD_PRELOAD": str(shim), "FAULTS_STATE": str(folder / "state"), **environment},
        cwd=HERE.parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_there_is_the_old_state_or_the_new_one(shim, tmp_path):
    """Some faults of each kind. All of them: `make faults`."""
    for scenario, result in found(shim, tmp_path, "export_file", "verdict", "events", "--limit", "3").items():
        assert result["problems"] == [], scenario
        assert {name.partition(":")[0] for name in result["outcomes"]} == {"full disk", "failing disk", "kill"}


@pytest.mark.slow
def test_so_there_is_where_libraries_write(shim, tmp_path):
    results = found(shim, tmp_path, "single_files", "folder", "serving_store", "checkpoints", "adapter", "--limit", "4")
    assert {name: result["problems"] for name, result in results.items() if result["problems"]} == {}


@pytest.mark.slow
def test_a_connection_that_breaks_leaves_the_old_version_or_the_new_one_in_redis(shim, tmp_path, redis_server):
    result = found(shim, tmp_path, "export_to_redis", "--limit", "6", FAULTS_REDIS=redis_server)["export_to_redis"]
    assert result["problems"] == []
    assert "kill: killed, old" in result["outcomes"]


def test_what_is_written_in_place_or_renamed_without_a_flush_is_found(shim, tmp_path):
    """The harness itself: a torn file, and one that a power failure empties after its rename."""
    problems = "\n".join(found(shim, tmp_path, "broken")["broken"]["problems"])
    assert "kill, 2 of 7 (in_place.txt): in_place.txt is neither old nor new" in problems
    assert "unflushed.txt is neither old nor new" in problems
    assert "OSError" in problems
