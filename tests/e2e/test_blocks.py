"""The shell blocks of README and docs, run as one script per page in a copy of a finished project.

Not run is what the pages' sources mark (tests/contracts/blocks.py); tests/pipelines/test_promotion.py runs that
of a promotion.
"""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.contracts.blocks import BLOCKS, OF_A_PROMOTION, Block, script
from tests.e2e.conftest import copy_of
from tests.e2e.project import Project
from tests.llm_i2i.serving.test_server import free_port

pytestmark = pytest.mark.slow

PAGES: dict[str, list[Block]] = {}
for block in BLOCKS:
    if block.language == "sh" and block.run and block.page != OF_A_PROMOTION:
        PAGES.setdefault(block.page, []).append(block)
# A line that stands on several pages is run on the first: `dvc repro` has nothing to do on any of them.
FIRST = {line: page for page, blocks in reversed(PAGES.items()) for block in blocks for line in block.run}


@pytest.fixture(scope="module")
def project(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A finished project whose last commit but one is a run, with a virtual environment, as `make` finds it."""
    project = copy_of(finished, tmp_path_factory.mktemp("blocks") / "project")
    (project.root / ".venv").mkdir()
    for name in ("bin", "lib", "pyvenv.cfg"):
        (project.root / ".venv" / name).symlink_to(Path(sys.prefix) / name)
    (project.root / ".venv/.installed").touch()
    for name in ("benchmarks/results/forecast.json", "docs/stage-graph.md"):
        (project.root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, project.root / name)
    project.run("git", "add", "--all")
    project.run("git", "config", "user.name", "t")
    project.run("git", "config", "user.email", "t@t")
    project.run("git", "commit", "-qm", "after the run")
    return project


@pytest.mark.parametrize("page", [page for page in PAGES if page in FIRST.values()])
def test_its_commands_run(
    page: str, project: Project, finished: Project, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    failing = tuple(words for block in PAGES[page] for words in block.fails)
    text = script([line for block in PAGES[page] for line in block.run if FIRST[line] == page])
    if "localhost:6379" in text:
        text = text.replace("localhost:6379", request.getfixturevalue("redis_server").split("/")[2])
    place = tmp_path if failing else finished.root if page == "zenml.md" else project.root  # its store cannot be moved
    environment = {**project.environment, "PORT": str(free_port()), "SLURM_ARRAY_TASK_ID": "1"}
    process = subprocess.Popen(
        ["bash", "-uo", "pipefail", *([] if failing else ["-e"]), "-x", "-c", text],
        cwd=place, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, start_new_session=True,
    )  # fmt: skip
    try:
        told = process.communicate(timeout=300)[0]
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0 or failing, told[-6000:]
    assert all(words in told for words in failing), told
    if place == project.root:
        project.run("git", "reset", "-q", "--hard")
        shutil.copytree(finished.root / "data", project.root / "data", dirs_exist_ok=True)
