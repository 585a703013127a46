"""`python -m pipelines memory`: its table, and the file that docs/gpu-memory.md quotes."""

import json
import shutil
from pathlib import Path

import pytest

from pipelines import memory
from pipelines.__main__ import main
from tests.conftest import ROOT


def test_what_the_document_quotes_is_what_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a change: `python -m pipelines memory --document`."""
    monkeypatch.chdir(ROOT)
    committed = json.loads((ROOT / memory.DOCUMENT).read_text(encoding="utf-8"))
    assert memory.documented() == committed


def test_the_table_is_that_of_params_and_counts_new_tokens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "profiles", "profiles")
    shutil.copy2(ROOT / "params.yaml", ".")
    assert main(["memory"]) == 0
    before = capsys.readouterr().out
    assert before.startswith("HuggingFaceTB/SmolLM2-135M-Instruct, 0 new tokens")
    assert "| train_generator | 512 (batch_tokens) |" in before
    assert "| train_discriminator | 320 (batch_tokens) |" in before
    memory.IDENTIFIERS.mkdir(parents=True)
    (memory.IDENTIFIERS / "tokens.json").write_text(json.dumps(["<a>"] * 100_000))
    assert main(["memory"]) == 0
    after = capsys.readouterr().out
    assert after.startswith("HuggingFaceTB/SmolLM2-135M-Instruct, 100000 new tokens")
    totals = [
        [float(line.split("|")[-2]) for line in text.splitlines() if "| 4,096" in line] for text in (before, after)
    ]
    assert all(more > less + 0.5 for less, more in zip(*totals, strict=True))
