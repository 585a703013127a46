"""Every experiment that ships fits params.yaml as it is."""

import pytest
import yaml

from llm_i2i.evaluation.experiments import check_points, load_experiment
from tests.conftest import ROOT

SHIPPED = sorted((ROOT / "experiments").glob("*.yaml"))
ASKED_FOR = {
    "ablation",
    "backbones",
    "controls",
    "negatives",
    "prompt",
    "tail_weight",
    "threshold",
    "volume",
}


def test_the_experiments_that_the_readme_names_ship() -> None:
    assert {path.stem for path in SHIPPED} >= ASKED_FOR


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_override_is_valid(path) -> None:
    experiment = load_experiment(path)
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    points = experiment.points(seeds=experiment.seeds or [params["seed"]])
    check_points(experiment.name, points, params)
    arms = {arm for point in points for arm in point.overrides.get("fuse.arms", params["fuse"]["arms"])}
    assert set(experiment.baselines) <= arms, "a baseline that is no arm compares with nothing"


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_what_the_plot_shows_varies(path) -> None:
    experiment = load_experiment(path)
    if experiment.x and experiment.x != "synthetic_kept":
        values = {str(point.overrides[experiment.x]) for point in experiment.points(seeds=[0])}
        assert len(values) > 1
