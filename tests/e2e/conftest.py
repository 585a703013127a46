"""One full run of the ci profile, shared by the tests of this folder and by all workers of a test run."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from filelock import FileLock

from tests.conftest import ROOT
from tests.e2e.project import Project


@contextmanager
def made_once(factory: pytest.TempPathFactory, name: str) -> Iterator[tuple[Path, bool]]:
    """A folder that the workers share, and whether this worker has to fill it: the others wait meanwhile.

    A worker that fails leaves nothing, and the next one tries again.
    """
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    done = folder.with_suffix(".done")
    with FileLock(folder.with_suffix(".lock")):
        fill = not done.exists()
        if fill:
            shutil.rmtree(folder, ignore_errors=True)
        yield folder, fill
        done.touch()


@pytest.fixture(scope="session")
def raw_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MovieLens-100K as two CSV files: a copy of data/ if that is it, else obtained as `make data` does."""
    with made_once(tmp_path_factory, "raw") as (folder, fill):
        if fill:
            obtain_movielens(folder)
    return folder


def obtain_movielens(folder: Path) -> None:
    if (ROOT / "data").is_dir():
        shutil.copytree(ROOT / "data", folder)
    # The command keeps tables that are MovieLens-100K and refuses to overwrite others.
    command = [sys.executable, "-m", "llm_i2i.data.movielens", "--out", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode and folder.exists():
        shutil.rmtree(folder)
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode and "registry" in done.stderr:
        pytest.skip(f"the package registry cannot be reached: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, raw_data: Path) -> Project:
    """A project after a run from nothing. Tests must leave it as it is.

    One instance of each stage runs in ZenML, those like it without: each start of ZenML takes seconds.
    """
    with made_once(tmp_path_factory, "finished") as (folder, fill):
        if not fill:
            return Project(folder, zenml=True)
        folder.mkdir()
        project = Project.copy(folder, zenml=True, data=raw_data)
        ran = project.repro("evaluate@swing-real", "evaluate_generator@llm_only")
        project.zenml = False
        ran += project.repro("evaluate", "evaluate_generator")
        project.zenml = True
        ran += project.repro()
        assert len(ran) == 30, ran
        project.commit("a run")
    return project


@pytest.fixture
def branch(finished: Project, tmp_path: Path) -> Project:
    """A copy of the finished project to change, its stages without ZenML."""
    return copy_of(finished, tmp_path / "branch")


def copy_of(finished: Project, root: Path) -> Project:
    """Copy a finished project, its stages without ZenML."""
    shutil.copytree(finished.root, root, ignore=shutil.ignore_patterns(".zenml-store", "tmp"))
    return Project(root)
