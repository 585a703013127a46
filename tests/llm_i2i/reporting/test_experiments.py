"""Rows, differences and texts of an experiment, worked by hand."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from llm_i2i.errors import ArtifactError
from llm_i2i.evaluation.experiments import Experiment
from llm_i2i.reporting.experiment_views import experiment_plots, experiment_table, rows_of, tell
from llm_i2i.reporting.experiments import EVERY_POINT, PointResult, evaluate_experiment, pooled_auc

N = 40  # users; the first 10 have a tail target


def per_user(model: str, arm: str, hits: set[int]) -> pd.DataFrame:
    users = [f"u{i:02d}" for i in range(N)]
    return pd.DataFrame(
        {
            "user_id": users,
            "item_id": [f"i{i}" for i in range(N)],
            "bucket": ["tail" if i < 25 else "head" for i in range(N)],
            "rank": np.array([1 if i in hits else 0 for i in range(N)], dtype="int32"),
            "model": model,
            "arm": arm,
            "is_long_tail": [i < 5 for i in range(N)],
        }
    )


def point(label: str, hits: dict[str, set[int]], *, seed: int = 1, protocol: str = "p") -> PointResult:
    metrics = {
        ("swing", arm): {"protocol_hash": protocol, "test_sha256": "t", "reachable_share": len(found) / N}
        for arm, found in hits.items()
    }
    kept = {"real": 0}
    fused = {
        arm: {"synthetic_kept": kept.get(arm, 100), "by_bucket": {"tail": {"synthetic": kept.get(arm, 40)}}}
        for arm in hits
    }
    tables = pd.concat([per_user("swing", arm, found) for arm, found in hits.items()], ignore_index=True)
    return PointResult(label, seed, metrics, fused, tables)


def trial(**content: object) -> Experiment:
    base = {"name": "trial", "question": "Does it help at all?", "variants": {"a": {}, "b": {}}}
    return Experiment.model_validate(base | content)


def line(result: dict, point: str, arm: str, against: str = "", part: str = "overall") -> dict:
    """The one line of a run, slice and comparison, metric Recall@10."""
    wanted = {"point": point, "arm": arm, "against": against, "slice": part, "metric": "recall@10"}
    (one,) = (row for row in result["rows"] if wanted.items() <= row.items())
    return one


def two_points() -> list[PointResult]:
    real = set(range(4))
    return [point("a", {"real": real, "llm_i2i": set(range(30))}), point("b", {"real": real, "llm_i2i": set(range(2))})]


def test_values_differences_and_the_arm_that_never_changes() -> None:
    result = evaluate_experiment(trial(), two_points(), resamples=500, seed=3)
    runs = list(dict.fromkeys((row["point"], row["arm"]) for row in result["rows"]))
    assert runs == [(EVERY_POINT, "real"), ("a", "llm_i2i"), ("b", "llm_i2i")]
    assert line(result, EVERY_POINT, "real")["value"] == 4 / 40
    assert line(result, "a", "llm_i2i")["value"] == 30 / 40
    assert line(result, "a", "llm_i2i", part="tail")["value"] == 1.0
    assert [line(result, "a", "llm_i2i", part=part)["n_users"] for part in ("overall", "tail")] == [40, 25]
    difference = line(result, "a", "llm_i2i", "arm real")
    assert difference["difference"] == pytest.approx(26 / 40)
    assert difference["low"] > 0
    assert line(result, "b", "llm_i2i", "arm real")["difference"] == pytest.approx(-2 / 40)


def test_kept_pairs_and_the_tails_among_them() -> None:
    result = evaluate_experiment(trial(), two_points(), resamples=50, seed=3)
    assert {(row["arm"], row["synthetic_kept"], row["tail_kept"]) for row in result["rows"]} == {
        ("real", 0.0, 0.0),
        ("llm_i2i", 100.0, 40.0),
    }
    assert result["judge"] == {}


def test_auc_of_several_seeds_is_weighted_by_users() -> None:
    def auc(value: float, half: float, users: int) -> dict:
        low, high = round(value - half, 6), round(value + half, 6)
        return {"auc": value, "auc_low": low, "auc_high": high, "n_users": users}

    one = {"judge": {"overall": auc(0.7, 0.04, 300), "tail": auc(0.5, 0.1, 10)}}
    other = {"judge": {"overall": auc(0.8, 0.03, 100)}}
    pooled = pooled_auc([one, other])["judge"]
    # 0.75 * 0.7 + 0.25 * 0.8; half width: the root of (0.75 * 0.04)^2 + (0.25 * 0.03)^2
    assert pooled["overall"] == {"auc": 0.725, "auc_low": 0.694077, "auc_high": 0.755923, "n_users": 400}
    assert pooled["tail"] == auc(0.5, 0.1, 10)
    a, b = two_points()
    result = evaluate_experiment(trial(), [replace(a, judge={"auc_within_user": one}), b], resamples=50, seed=3)
    assert result["judge"] == {"a": one}


def test_no_interval_for_few_users() -> None:
    result = evaluate_experiment(trial(slices=["long_tail"]), two_points(), resamples=50, seed=3)
    assert rows_of(result)["against"].eq("").all()


def test_reference_point_is_compared_arm_by_arm() -> None:
    result = evaluate_experiment(trial(reference="b", baselines=[]), two_points(), resamples=50, seed=3)
    assert line(result, "a", "llm_i2i", "point b")["difference"] == pytest.approx(28 / 40)


def test_seeds_that_disagree_keep_0_in_the_interval() -> None:
    real = set(range(4))
    points = [
        point("a", {"real": real, "llm_i2i": set(range(20)) if seed == 1 else set()}, seed=seed, protocol=f"p{seed}")
        for seed in (1, 2)
    ]
    result = evaluate_experiment(trial(variants={"a": {}}), points, resamples=2000, seed=3)
    found = line(result, "a", "llm_i2i", "arm real")
    assert found["difference"] == pytest.approx((16 - 4) / 80)
    assert found["low"] < 0 < found["high"]
    assert result["protocol_hash"] == {"1": {"swing": "p1"}, "2": {"swing": "p2"}}


def test_points_of_different_protocols_are_refused() -> None:
    points = [point("a", {"real": {1}}), point("b", {"real": {1}}, protocol="q")]
    with pytest.raises(ArtifactError, match="b, swing, real"):
        evaluate_experiment(trial(), points, resamples=50, seed=3)


def test_texts_and_json_follow_the_numbers() -> None:
    failed = PointResult("c", 1, {}, {}, error="no row survives.")
    experiment = trial(variants={"a": {}, "b": {}, "c": {}})
    result = evaluate_experiment(experiment, [*two_points(), failed], resamples=500, seed=3)
    text = tell(result)
    assert "highest, 0.7500, for Swing on arm llm_i2i (a)" in text
    assert "Against arm real: 1 of 2 better, 0 worse, 1 without a shown difference" in text
    assert "Point c could not be run: no row survives." in text
    assert json.loads(json.dumps(result)) == result
    table = experiment_table(result)
    assert [cell.text for cell in table.rows[1]][:4] == ["a", "Swing, llm_i2i", "100", "0.7500"]
    assert table.rows[1][3].tone == "better"
    plots = experiment_plots(experiment, result)
    assert [plot.name for plot in plots] == ["trial-overall", "trial-tail", "trial-differences"]
    assert all(plot.svg.startswith("<svg xmlns") for plot in plots)
