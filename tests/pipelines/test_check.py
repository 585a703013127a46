"""Combinations that make no sense are named, each with its key and what to do."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from llm_i2i.errors import ParamsError
from pipelines import check
from tests.conftest import ROOT


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(check, "_has_cuda", lambda: False)
    shutil.copytree(ROOT / "profiles", "profiles")
    shutil.copy2(ROOT / "params.yaml", ".")
    return tmp_path


def write(changes: dict[str, Any]) -> None:
    """Change params.yaml."""
    raw = yaml.safe_load(Path("params.yaml").read_text())
    for key, value in changes.items():
        section, _, option = key.partition(".")
        if option:
            raw[section][option] = value
        else:
            raw[section] = value
    Path("params.yaml").write_text(yaml.safe_dump(raw))


def test_the_default_makes_sense(project: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        check.check()
    assert caplog.text == ""


COMPACT = {
    "base_model.source": "compact",
    "identify.identifier": "token",
    "evaluate_generator.arms": ["llm_only"],
    "train_discriminator.template": "discriminator_compact_v1",
}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {**COMPACT, "train_generator.template": "generator_v1"},
            "train_generator.template: generator_v1 does not fit .*compact; set it to generator_bare_v1",
        ),
        (
            {"train_discriminator.template": "discriminator_compact_v1"},
            "train_discriminator.template: .* does not fit .*embedded; set it to discriminator_v1",
        ),
        ({"train_generator.optimizer": "paged_adamw_8bit"}, "train_generator.optimizer: .*needs CUDA.*set it to adamw"),
    ],
)
def test_what_cannot_work_stops(project: Path, changes: dict[str, Any], told: str) -> None:
    write(changes)
    with pytest.raises(ParamsError, match=rf"1 combination\(s\) that cannot work\n  {told}"):
        check.check()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"controls.names": ["item_knn", "random"]},
            "controls.names: random is made and no arm trains on it; take it out",
        ),
        (
            {"score.sources": ["generator", "item_knn"]},
            "score.sources: item_knn is scored .*item_knn_filtered to fuse.arms",
        ),
        (
            {"fuse.custom": {"item_quota": 2}},
            "fuse.custom: has no effect under fuse.selection paper; set fuse.selection",
        ),
        (
            {"fuse.selection": "recipe", "fuse.threshold": 0.9},
            "fuse.threshold: has no effect under fuse.selection recipe",
        ),
        (
            {"judge.by": "head", "split.held_out_share": 0.5, "fuse.threshold": 0.5},
            "fuse.threshold: 0.5 is more than judge.by head says .*lower it",
        ),
        ({"gate.model": "bm25"}, "gate.model: bm25 is not run; add it to train_i2i.models"),
        ({"gate.arm": "no_generator"}, "gate.arm: no_generator is not run; add it to fuse.arms"),
        ({"base_model.source": "random"}, "base_model.source: random is a tiny model"),
    ],
)
def test_what_has_no_effect_is_a_warning(
    project: Path, changes: dict[str, Any], told: str, caplog: pytest.LogCaptureFixture
) -> None:
    write(changes)
    check.check()
    (message,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert message.startswith("check: ")
    assert re.search(told, message)


def test_what_differs_from_the_profile_is_told(project: Path, caplog: pytest.LogCaptureFixture) -> None:
    write({"fuse.threshold": 0.7})
    with caplog.at_level("INFO"):
        check.check()
    assert "check: params.yaml differs from profile laptop in fuse.threshold=0.7" in caplog.text
