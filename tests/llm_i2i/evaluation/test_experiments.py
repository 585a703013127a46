"""Declared experiments: grids, labels, overrides and what is refused."""

from pathlib import Path

import pytest
import yaml

from llm_i2i.errors import ParamsError
from llm_i2i.evaluation.experiments import check_points, load_experiment, resolve
from tests.conftest import whole_params


def declared(folder: Path, **content: object) -> Path:
    path = folder / "trial.yaml"
    path.write_text(
        yaml.safe_dump({"name": "trial", "question": "Does it help at all?", **content}, sort_keys=False),
        encoding="utf-8",
    )
    return path


def params() -> dict:
    return whole_params()


def test_grid_is_the_product_then_variants_for_each_seed(tmp_path: Path) -> None:
    path = declared(
        tmp_path,
        fixed={"fuse.arms": ["real", "llm_i2i"]},
        grid={"fuse.mode": ["threshold"], "fuse.threshold": [0.5, 0.9], "fuse.filter_real": [True, False]},
        variants={"half": {"fuse.mode": "volume"}},
    )
    points = load_experiment(path).points(seeds=[1, 2])
    assert [(point.seed, point.label) for point in points] == [
        (seed, label)
        for seed in (1, 2)
        for label in (
            "fuse.threshold=0.5, fuse.filter_real=true",
            "fuse.threshold=0.5, fuse.filter_real=false",
            "fuse.threshold=0.9, fuse.filter_real=true",
            "fuse.threshold=0.9, fuse.filter_real=false",
            "half",
        )
    ]
    assert points[0].overrides == {
        "fuse.arms": ["real", "llm_i2i"],
        "fuse.mode": "threshold",
        "fuse.threshold": 0.5,
        "fuse.filter_real": True,
        "seed": 1,
    }
    assert points[4].overrides == {"fuse.arms": ["real", "llm_i2i"], "fuse.mode": "volume", "seed": 1}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({}, "neither grid nor variants"),
        ({"grid": {"seed": [1, 1]}}, "occur twice"),
        ({"variants": {"a": {}}, "reference": "b"}, "'b' is none of"),
        ({"variants": {"a": {}}, "metrics": ["auc"]}, "metrics.0"),
        ({"variants": {"a": {}}, "slices": ["middle"]}, "slices.0"),
        ({"variants": {"a": {}}, "grit": {}}, "grit"),
    ],
)
def test_broken_declarations_are_refused(tmp_path: Path, content: dict, told: str) -> None:
    with pytest.raises(ParamsError, match=told):
        load_experiment(declared(tmp_path, **content))


def test_a_missing_file_names_those_there_are(tmp_path: Path) -> None:
    declared(tmp_path, variants={"a": {}})
    with pytest.raises(ParamsError, match="no such experiment; expected trial"):
        load_experiment(tmp_path / "trail.yaml")


def test_resolve_changes_a_copy_and_lists_unknown_keys() -> None:
    before = {"a": {"b": 1}, "c": [1]}
    assert resolve(before, {"a.b": 2, "c": [3]}) == {"a": {"b": 2}, "c": [3]}
    assert before == {"a": {"b": 1}, "c": [1]}
    with pytest.raises(ParamsError, match=r"\['a.x', 'd', 'a.b.c'\]"):
        resolve(before, {"a.x": 1, "d": 1, "a.b.c": 1})


def test_every_point_at_fault_is_told_before_any_runs(tmp_path: Path) -> None:
    path = declared(tmp_path, grid={"fuse.threshold": [0.5, 1.5, 7]}, variants={"typo": {"fuse.treshold": 1}})
    points = load_experiment(path).points(seeds=[1])
    with pytest.raises(ParamsError) as caught:
        check_points("trial", points, params())
    message = str(caught.value)
    assert "3 point(s) at fault" in message
    for told in ("fuse.threshold=1.5", "fuse.threshold=7", "typo", "fuse.treshold"):
        assert told in message
    assert "fuse.threshold=0.5" not in message
