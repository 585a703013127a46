"""dvc.yaml as DVC itself resolves it: templates filled in, matrices spread out."""

import subprocess
import sys
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT


@pytest.fixture(scope="session")
def written() -> dict[str, Any]:
    """Stages as dvc.yaml writes them, before templates are filled in."""
    return yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]


@pytest.fixture(scope="session")
def params() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def edges() -> list[tuple[str, str]]:
    """(stage, stage that waits for it) of DVC's own graph."""
    command = [sys.executable, "-m", "dvc", "dag", "--dot"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stderr
    pairs = [line.split('"')[1::2] for line in shown.stdout.splitlines()]
    return [(pair[0], pair[1]) for pair in pairs if len(pair) == 2]
