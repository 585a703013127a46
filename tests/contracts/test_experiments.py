"""Every experiment that ships fits params.yaml as it is."""

import pytest

from llm_i2i.evaluation.experiments import check_points, load_experiment
from llm_i2i.params import RECIPE
from tests.conftest import ROOT, whole_params

SHIPPED = sorted((ROOT / "experiments").glob("*.yaml"))
ASKED_FOR = {"ablation", "backbones", "controls", "prompt", "tail_weight", "threshold", "volume"}


def test_the_experiments_that_the_readme_names_ship() -> None:
    assert {path.stem for path in SHIPPED} >= ASKED_FOR


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_override_is_valid(path) -> None:
    experiment = load_experiment(path)
    params = whole_params()
    points = experiment.points(seeds=experiment.seeds or [params["seed"]])
    check_points(experiment.name, points, params)
    arms = {arm for point in points for arm in point.overrides.get("fuse.arms", params["fuse"]["arms"])}
    assert set(experiment.baselines) <= arms, "a baseline that is no arm compares with nothing"


@pytest.mark.parametrize("name", ["recipe"])
def test_what_an_experiment_repeats_of_the_recipe_is_the_recipe(name) -> None:
    for point in load_experiment(ROOT / f"experiments/{name}.yaml").points(seeds=[0]):
        for key, value in point.overrides.items():
            option = key.removeprefix("fuse.custom.")
            if option != key and option != "confidence":
                assert value == getattr(RECIPE, option), f"{point.label}: {key}"


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_what_the_plot_shows_varies(path) -> None:
    experiment = load_experiment(path)
    if experiment.x and experiment.x != "synthetic_kept":
        values = {str(point.overrides[experiment.x]) for point in experiment.points(seeds=[0])}
        assert len(values) > 1
