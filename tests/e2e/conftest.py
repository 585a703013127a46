"""One full run of the ci profile, shared by the tests of this folder."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.e2e.project import Project


@pytest.fixture(scope="session")
def raw_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MovieLens-100K as two CSV files: a copy of data/ if that is it, else obtained as `make data` does."""
    folder = tmp_path_factory.mktemp("raw") / "data"
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
    return folder


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, raw_data: Path) -> Project:
    """A project after one `dvc repro` from nothing, each stage in ZenML. Tests must leave it as it is."""
    project = Project.copy(tmp_path_factory.mktemp("finished"), zenml=True, data=raw_data)
    ran = project.repro()
    assert len(ran) == 29, ran
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
