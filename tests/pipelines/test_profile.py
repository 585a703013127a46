"""Profiles: each is what it is whatever was there before, and nothing of the user's is lost."""

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from llm_i2i.errors import ParamsError
from llm_i2i.params import Params, load_params, read_profile
from llm_i2i.params.reading import leaves
from pipelines import profile
from tests.conftest import ROOT


@pytest.mark.parametrize("path", ["params.yaml", "profiles/ci.yaml"])
def test_values_change_and_comments_stay(path: str) -> None:
    before = (ROOT / path).read_text(encoding="utf-8")
    after = profile.with_overlay(before, {"seed": 7, "fuse": {"threshold": 0.125}})
    lines = zip(before.splitlines(), after.splitlines(), strict=True)
    changed = {old.partition("#")[2]: new.partition("#")[0].strip() for old, new in lines if old != new}
    assert set(changed.values()) == {"seed: 7", "threshold: 0.125"}
    assert all(new.partition("#")[2] in changed for new in after.splitlines() if "0.125" in new)


def commit(message: str = "x") -> None:
    subprocess.run(["git", "add", "--all"], check=True)
    subprocess.run(["git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-q", "-m", message], check=True)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "profiles", "profiles")
    shutil.copy2(ROOT / "params.yaml", ".")
    laptop = Path("profiles/laptop.yaml").read_text()
    Path("profiles/bad.yaml").write_text(laptop.replace("max_users: 0 ", "max_users: -1 "))
    Path("profiles/unknown.yaml").write_text(laptop.replace("  max_users:", "  mux_users:", 1))
    Path("profiles/partial.yaml").write_text("split:\n  max_users: 77\n")
    subprocess.run(["git", "init", "-q"], check=True)
    commit()
    return tmp_path


def own(name: str) -> Params:
    """What a profile is by itself."""
    return Params.model_validate({**read_profile(name), "profile": name})


@pytest.mark.parametrize("between", ["no commit", "commit"])
@pytest.mark.parametrize("names", [("ci", "laptop"), ("compact", "gpu"), ("gpu", "ci", "compact", "laptop")])
def test_a_profile_leaves_nothing_of_the_one_before(project: Path, names: tuple[str, ...], between: str) -> None:
    original = Path("params.yaml").read_text()
    for name in names:
        profile.apply(name)
        assert load_params() == own(name)
        assert profile.differences() == []
        if between == "commit":
            commit(name)
    if names[-1] == "laptop":
        assert Path("params.yaml").read_text() == original


def test_what_describes_the_data_stays_and_is_told(project: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = Path("params.yaml").read_text()
    Path("params.yaml").write_text(text.replace("data: MovieLens-100K (GroupLens)", "data: our shop"))
    commit()
    with caplog.at_level("INFO"):
        profile.apply("ci")
    assert load_params().model_card.data == "our shop"
    assert "profile ci: params.yaml differs from it in model_card.data=our shop" in caplog.text
    profile.apply("laptop")
    assert load_params().model_card.data == "our shop"


def test_what_was_added_to_params_and_committed_goes(project: Path) -> None:
    Path("params.yaml").write_text(Path("params.yaml").read_text().replace("  max_users: 0 ", "  max_users: 5 ", 1)
                                   .replace("report:", "report:\n  samples: 3\n#")
                                   .replace("custom: {}", "custom: {item_quota: 1}"))  # fmt: skip
    assert profile.differences() == ["split.max_users=5", "fuse.custom.item_quota=1", "report.samples=3"]
    commit()
    profile.apply("laptop")
    assert load_params() == own("laptop")


@pytest.mark.parametrize("name", ["bad", "unknown", "partial", "missing", "models"])
def test_bad_profile_changes_nothing(project: Path, name: str) -> None:
    committed = Path("params.yaml").read_text()
    with pytest.raises(ParamsError):
        profile.apply(name)
    assert Path("params.yaml").read_text() == committed
    assert not list(project.glob("*.partial"))


def test_own_changes_are_not_overwritten(project: Path) -> None:
    for name in ("laptop", "ci"):
        profile.apply(name)
        changed = Path("params.yaml").read_text().replace("seed: 42", "seed: 43")
        Path("params.yaml").write_text(changed)
        with pytest.raises(ParamsError, match="uncommitted"):
            profile.apply("compact")
        assert Path("params.yaml").read_text() == changed
        subprocess.run(["git", "checkout", "-q", "params.yaml"], check=True)


def test_params_under_another_profile_states_the_same_keys_with_its_values(project: Path) -> None:
    raw = yaml.safe_load(Path("params.yaml").read_text())
    raw["report"]["samples"], raw["model_card"]["data"] = 3, "our shop"
    restated = profile.under(raw, "compact")
    assert restated["profile"] == "compact"
    assert restated["base_model"]["source"] == "compact"
    assert restated["report"]["samples"] == 20
    assert "model_card" not in restated
    assert {key for key, _ in leaves(restated)} == {k for k, _ in leaves(raw) if k[0] != "model_card"}


def test_first_table() -> None:
    assert profile.first_table("# x\n\n| a |\n| - |\n| 1 |\n\ntext\n| b |") == "| a |\n| - |\n| 1 |"
    assert profile.first_table(" no table ") == "no table"
