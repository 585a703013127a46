"""Where a point of an experiment writes its values, what it is checked against, and what is written of all points."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml

from llm_i2i.evaluation.experiments import Experiment, check_points, resolve
from llm_i2i.params import Params, load_params, read_profile
from pipelines.lab import sweep
from tests.conftest import ROOT
from tests.llm_i2i.reporting.test_experiments import trial, two_points


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "profiles", "profiles")
    shutil.copy2(ROOT / "params.yaml", ".")
    return tmp_path


def experiment(**content: object) -> Experiment:
    return Experiment.model_validate({"name": "trial", "question": "Does it help at all?", **content})


def test_options_of_models_go_into_their_file_and_all_others_into_params(project: Path) -> None:
    trial = experiment(
        variants={"a": {"fuse.custom.pairs_per_user": 0.1, "train_i2i.bm25.k1": 2.0, "train_i2i.models": ["bm25"]}}
    )
    points = trial.points(seeds=[7])
    check_points("trial", points, sweep._base_params(trial))
    assert sweep._settings(trial, points[0]) == [
        *("-S", "++fuse.custom.pairs_per_user=0.1"),
        *("-S", "profiles/models.yaml:train_i2i.bm25.k1=2.0"),
        *("-S", "++train_i2i.models=['bm25']"),
        *("-S", "++seed=7"),
    ]


def test_a_point_under_a_profile_is_that_profile_but_for_its_own_values(project: Path) -> None:
    raw = yaml.safe_load(Path("params.yaml").read_text())
    raw["model_card"]["data"] = "our shop"
    Path("params.yaml").write_text(yaml.safe_dump(raw))
    trial = experiment(profile="compact", variants={"a": {"fuse.selection": "paper"}})
    (point,) = trial.points(seeds=[7])
    base = sweep._base_params(trial)
    expected = read_profile("compact") | {"profile": "compact", "model_card": {**raw["model_card"]}}
    assert base == expected
    assert Params.model_validate(resolve(base, point.overrides)).fuse.rule.mode == "threshold"
    words = sweep._settings(trial, point)
    assert "++profile='compact'" in words
    assert "++train_generator.template='generator_bare_v1'" in words
    # A key that the point sets is said once: the point's value, not the profile's.
    assert [word for word in words if "fuse.selection" in word] == ["++fuse.selection='paper'"]
    assert "++seed=7" in words
    assert not [word for word in words if "model_card" in word]


def test_results_are_the_table_and_say_by_which_selection_pairs_were_chosen(tmp_path: Path) -> None:
    chosen = {"a": "recipe", "b": "paper"}
    sweep._write(trial(reference="b"), two_points(), tmp_path, load_params(ROOT / "params.yaml"), chosen)
    content = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert content["selection"] == chosen
    table = pd.read_csv(tmp_path / "table.csv", keep_default_na=False)
    assert len(table) == len(content["rows"])
    assert table["against"].tolist() == [row["against"] for row in content["rows"]]
    assert content["plots"] == [f"trial-{name}.svg" for name in ("overall", "tail", "differences")]
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert all((tmp_path / plot).is_file() and f"({plot})" in text for plot in content["plots"])
    assert "Against point b: 1 of 1 better" in text


def test_a_point_that_failed_is_tried_again_and_one_that_was_measured_is_not(tmp_path: Path) -> None:
    path = tmp_path / "point.json"
    assert not sweep._is_done(path)
    path.with_suffix(".parquet").touch()
    for record, is_done in (({"error": "none of it", "judge": {}}, False), ({"error": "", "judge": {}}, True)):
        path.write_text(json.dumps(record), encoding="utf-8")
        assert sweep._is_done(path) == is_done
    path.with_suffix(".parquet").unlink()
    assert not sweep._is_done(path)
