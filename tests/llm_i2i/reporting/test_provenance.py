import os
import shutil
import subprocess
from pathlib import Path

import pytest

from llm_i2i.reporting.provenance import read_provenance


def _git(root: Path, *arguments: str) -> str:
    identity = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b.c", "GIT_CONFIG_GLOBAL": os.devnull}
    identity |= {"GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b.c", "GIT_CONFIG_SYSTEM": os.devnull}
    done = subprocess.run(
        ["git", *arguments], cwd=root, env=os.environ | identity, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.mark.skipif(shutil.which("git") is None, reason="no git")
def test_revision_and_changes_of_code_only(tmp_path: Path) -> None:
    _git(tmp_path, "init", "--quiet")
    (tmp_path / "params.yaml").write_text("seed: 1\n")
    (tmp_path / "dvc.lock").write_text("a\n")
    _git(tmp_path, "add", ".")
    _git(tmp_path, "commit", "--quiet", "-m", "first")
    (tmp_path / "dvc.lock").write_text("b\n")
    clean = read_provenance(tmp_path)
    assert clean.revision == _git(tmp_path, "rev-parse", "HEAD")
    assert clean.commit_date.startswith("20")
    assert clean.changed == ()
    (tmp_path / "params.yaml").write_text("seed: 2\n")
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "new.py").write_text("")
    dirty = read_provenance(tmp_path)
    assert dirty.changed == ("params.yaml", "src/")


def test_without_git_all_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = read_provenance(tmp_path)
    assert (found.revision, found.commit_date, found.changed) == ("unknown", "unknown", None)
    assert "torch" in found.packages


@pytest.mark.parametrize("text", ["", "outs: []", "a: [", "outs: [1]", "5"])
def test_a_strange_data_dvc_is_left_out(text: str, tmp_path: Path) -> None:
    (tmp_path / "data.dvc").write_text(text)
    assert read_provenance(tmp_path).data == {}


def test_data_hash(tmp_path: Path) -> None:
    (tmp_path / "data.dvc").write_text("outs:\n- md5: abc.dir\n  size: 5\n  nfiles: 2\n  hash: md5\n  path: data\n")
    assert read_provenance(tmp_path).data == {"md5": "abc.dir", "size": 5, "nfiles": 2}
