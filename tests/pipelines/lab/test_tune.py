import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml

from llm_i2i.params import load_params
from llm_i2i.schema import INTERACTIONS, ITEMS, write_table
from pipelines.__main__ import main
from tests.conftest import ROOT
from tests.llm_i2i.evaluation.tables import catalogue, leave_one_out, random_interactions


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with params.yaml, profiles and a split."""
    rows = random_interactions()
    train, valid, _ = leave_one_out(rows)
    write_table(train, tmp_path / "artifacts/split/train.parquet", INTERACTIONS)
    write_table(valid, tmp_path / "artifacts/split/valid.parquet", INTERACTIONS)
    write_table(catalogue(rows["item_id"], train), tmp_path / "artifacts/items/items.parquet", ITEMS)
    shutil.copytree(ROOT / "profiles", tmp_path / "profiles")
    shutil.copy2(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_tune_writes_the_chosen_values_and_all_trials(project: Path) -> None:
    before = (project / "profiles/models.yaml").read_text(encoding="utf-8")
    assert main(["tune", "swing", "--trials", "5", "--objective", "recall@10"]) == 0
    trials = pd.read_csv(project / "reports/tuning/swing.csv")
    assert len(trials) == 5
    assert set(trials["objective"]) == {"recall@10"}
    best = trials.loc[trials["value"].idxmax()]
    written = load_params().train_i2i.swing_tuned.model_dump()
    assert written == {name: best[name] for name in written}
    after = (project / "profiles/models.yaml").read_text(encoding="utf-8")
    changed = [(old, new) for old, new in zip(before.splitlines(), after.splitlines(), strict=True) if old != new]
    assert changed
    for old, new in changed:
        assert old.partition("#")[2] == new.partition("#")[2]
        assert old.partition(":")[0] == new.partition(":")[0]
    same = {**yaml.safe_load(after)["train_i2i"], "swing_tuned": None}
    assert same == {**yaml.safe_load(before)["train_i2i"], "swing_tuned": None}


def test_tune_writes_each_value_as_the_type_of_its_option(project: Path) -> None:
    assert main(["tune", "bpr", "--trials", "3"]) == 0
    written = yaml.safe_load((project / "profiles/models.yaml").read_text(encoding="utf-8"))["train_i2i"]["bpr_tuned"]
    kinds = {name: type(value) for name, value in load_params().train_i2i.bpr_tuned.model_dump().items()}
    assert {name: type(value) for name, value in written.items()} == kinds
    assert kinds["with_bias"] is bool
    assert set(pd.read_csv(project / "reports/tuning/bpr.csv")["with_bias"]) <= {True, False}


def test_tune_without_a_split_or_of_no_model_says_so_and_changes_nothing(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (project / "profiles/models.yaml").read_bytes()
    assert main(["tune", "magic"]) == 2
    assert "swing" in capsys.readouterr().err
    (project / "artifacts/split/valid.parquet").unlink()
    assert main(["tune", "swing"]) == 2
    assert "valid.parquet: no such file" in capsys.readouterr().err
    assert (project / "profiles/models.yaml").read_bytes() == before
