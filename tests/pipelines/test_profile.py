"""Profiles: applied to the committed values, nothing lost, nothing unknown."""

import subprocess
from pathlib import Path

import pytest

from llm_i2i.errors import ParamsError
from pipelines import profile
from tests.conftest import ROOT


def test_values_change_and_comments_stay() -> None:
    text = "# head\na: 1      # one\nb:\n  c: [x, y]  # list\n  d: 5.0e-4\n"
    changed = profile.with_overlay(text, {"a": 2, "b": {"d": 1.0}})
    assert changed == "# head\na: 2      # one\nb:\n  c: [x, y]  # list\n  d: 1.0\n"


def test_unknown_keys_are_told_together() -> None:
    with pytest.raises(ParamsError, match=r"'b\.x', 'c'"):
        profile.with_overlay("a: 1\nb:\n  d: 1\n", {"a": 2, "b": {"x": 1}, "c": 3})


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "profiles").mkdir()
    Path("params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    Path("profiles/a.yaml").write_text("split:\n  max_users: 77\n")
    Path("profiles/b.yaml").write_text("seed: 5\n")
    Path("profiles/bad.yaml").write_text("split:\n  max_users: -1\n")
    Path("profiles/unknown.yaml").write_text("split:\n  mux_users: 1\n")
    for command in (
        ["init", "-q"],
        ["add", "params.yaml"],
        ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "x"],
    ):
        subprocess.run(["git", *command], check=True)
    return tmp_path


def test_profiles_do_not_pile_up_and_laptop_restores(project: Path) -> None:
    committed = Path("params.yaml").read_text()
    profile.apply("a")
    first = Path("params.yaml").read_text()
    assert "max_users: 77" in first
    profile.apply("a")
    assert Path("params.yaml").read_text() == first
    profile.apply("b")
    assert "max_users: 77" not in Path("params.yaml").read_text()
    assert "seed: 5" in Path("params.yaml").read_text()
    profile.apply("laptop")
    assert Path("params.yaml").read_text() == committed


@pytest.mark.parametrize("name", ["bad", "unknown", "missing"])
def test_bad_profile_changes_nothing(project: Path, name: str) -> None:
    committed = Path("params.yaml").read_text()
    with pytest.raises(ParamsError):
        profile.apply(name)
    assert Path("params.yaml").read_text() == committed
    assert not list(project.glob("*.partial"))


def test_own_changes_are_not_overwritten(project: Path) -> None:
    own = Path("params.yaml").read_text().replace("seed: 42", "seed: 43")
    Path("params.yaml").write_text(own)
    with pytest.raises(ParamsError, match="uncommitted"):
        profile.apply("a")
    assert Path("params.yaml").read_text() == own


def test_first_table() -> None:
    assert profile.first_table("# x\n\n| a |\n| - |\n| 1 |\n\ntext\n| b |") == "| a |\n| - |\n| 1 |"
    assert profile.first_table(" no table ") == "no table"
