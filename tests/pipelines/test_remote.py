"""A DVC remote that is not there, or that may not be written to: one message, and everything stays as it was."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.run import digest

DVC = (sys.executable, "-m", "dvc")
KEPT = ("data.dvc", "data", ".dvc/cache")


def dvc(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*DVC, *arguments], capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_a_remote_that_fails_is_told_and_nothing_is_gone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dvc("init", "--no-scm", "--quiet")
    Path("data").mkdir()
    Path("data", "interactions.csv").write_text("user_id,item_id\n", encoding="utf-8")
    assert dvc("add", "--quiet", "data").returncode == 0
    before = {name: digest(Path(name)) for name in KEPT}

    # Even root may make no folder there.
    config = Path(".dvc", "config")
    config.write_text(
        "[core]\n    no_scm = True\n    remote = r\n['remote \"r\"']\n    url = /proc/none\n", encoding="utf-8"
    )
    pushed = dvc("push")
    assert pushed.returncode
    assert "Traceback" not in pushed.stderr
    assert "/proc/none" in pushed.stderr
    assert {name: digest(Path(name)) for name in KEPT} == before

    shutil.rmtree("data")
    shutil.rmtree(".dvc/cache")
    config.write_text(
        config.read_text(encoding="utf-8").replace("/proc/none", str(tmp_path / "none")), encoding="utf-8"
    )
    pulled = dvc("pull", "data.dvc")
    assert pulled.returncode
    assert "Traceback" not in pulled.stderr
    assert "data" in pulled.stderr
    assert digest(Path("data.dvc")) == before["data.dvc"]
