import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from llm_i2i.llm.calibration import (
    auc_by_bucket,
    auc_interval,
    cross_fitted,
    fit_temperature,
    held_out_report,
    p_yes,
    reliability,
)


def test_p_yes_is_the_two_way_softmax():
    yes, no = 2.5, 1.0
    expected = np.exp(yes) / (np.exp(yes) + np.exp(no))
    assert p_yes(np.array([yes - no]), 1.0)[0] == pytest.approx(expected)
    assert p_yes(np.array([-1e9, 1e9]), 1.0) == pytest.approx([0.0, 1.0])


def test_the_temperature_that_was_put_in_comes_out():
    rng = np.random.default_rng(0)
    true_margin = rng.normal(size=40_000)
    label = (rng.random(40_000) < p_yes(true_margin, 1.0)).astype(np.int64)
    assert fit_temperature(3.0 * true_margin, label) == pytest.approx(3.0, rel=0.1)


def test_reliability_by_hand():
    found = reliability(np.array([0.05, 0.07, 0.95, 1.0]), np.array([0, 1, 1, 1]))
    assert [b["n"] for b in found.bins] == [2, 2]
    # |0.06 - 0.5| * 1/2 + |0.975 - 1| * 1/2
    assert found.ece == pytest.approx(0.5 * 0.44 + 0.5 * 0.025)


def test_auc_interval_holds_the_auc_and_is_wide_for_chance():
    rng = np.random.default_rng(1)
    group = np.repeat(np.arange(50), 8)
    label = np.tile([0, 1], 200)
    found = auc_interval(rng.normal(size=400), label, group, seed=0)
    assert found["auc_low"] < 0.5 < found["auc_high"]
    better = auc_interval(label + rng.normal(size=400), label, group, seed=0)
    assert better["auc_low"] > 0.5
    assert found["auc_low"] <= found["auc"] <= found["auc_high"]
    assert better["auc"] == pytest.approx(roc_auc_score(label, label + np.zeros(400)), abs=0.35)


def test_a_temperature_is_judged_on_users_it_was_not_fitted_on():
    rng = np.random.default_rng(2)
    margin = rng.normal(size=400)
    group = np.arange(400) % 20
    label = (rng.random(400) < p_yes(margin, 0.5)).astype(np.int64)
    found = cross_fitted(margin, label, group)
    even = group % 2 == 0
    np.testing.assert_array_equal(found[even], p_yes(margin[even], fit_temperature(margin[~even], label[~even])))
    # What an even user answered changes nothing for even users.
    other = np.where(even, 1 - label, label)
    np.testing.assert_array_equal(cross_fitted(margin, other, group)[even], found[even])


def test_calibration_repairs_overconfidence_on_unseen_users():
    rng = np.random.default_rng(3)
    truth = rng.normal(size=8000)
    label = (rng.random(8000) < p_yes(truth, 1.0)).astype(np.int64)
    report = held_out_report(4.0 * truth, label, np.arange(8000) % 40, seed=0)
    assert report["temperature"] == pytest.approx(4.0, rel=0.15)
    assert report["ece"] < 0.04 < report["ece_uncalibrated"]


def test_auc_by_bucket_by_hand():
    # Negatives at 0 and 2. The head item at 3 beats both, the tail item at 1 beats one: 1, 0.5, together 0.75.
    margin, label = np.array([3.0, 1.0, 0.0, 2.0]), np.array([1, 1, 0, 0])
    bucket = np.array(["head", "tail", "mid", "tail"])
    found = auc_by_bucket(margin, label, np.array([0, 1, 0, 1]), bucket, seed=0)
    assert {name: entry["auc"] for name, entry in found.items()} == {"overall": 0.75, "head": 1.0, "tail": 0.5}
    assert found["tail"]["n_yes"] == 1
    assert found["tail"]["n_no"] == 2
