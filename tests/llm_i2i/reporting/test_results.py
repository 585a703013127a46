import json
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_i2i.evaluation.bootstrap import Interval, paired_bootstrap
from llm_i2i.reporting.collect import ReportInputs, collect
from llm_i2i.reporting.report import Report
from llm_i2i.reporting.results import (
    MIN_USERS,
    compute_results,
    main_k,
    outcome_of,
    per_user_metric,
    slice_masks,
    summarize,
)
from tests.llm_i2i.reporting.run_folder import write_run


def test_per_user_metrics_by_hand() -> None:
    ranks = np.array([1, 3, 10, 11, 0], dtype=np.int32)
    assert per_user_metric(ranks, name="recall", k=10).tolist() == [1.0, 1.0, 1.0, 0.0, 0.0]
    assert per_user_metric(ranks, name="ndcg", k=10) == pytest.approx([1.0, 0.5, 1 / math.log2(11), 0.0, 0.0])


@given(st.lists(st.integers(0, 60), min_size=1, max_size=30), st.integers(1, 50))
def test_metrics_are_monotone_in_k_and_ndcg_never_exceeds_recall(ranks: list[int], k: int) -> None:
    array = np.array(ranks, dtype=np.int32)
    recall, ndcg = (per_user_metric(array, name=name, k=k) for name in ("recall", "ndcg"))
    assert (ndcg <= recall).all()
    assert ((ndcg > 0) == (recall > 0)).all()
    assert (per_user_metric(array, name="recall", k=k + 1) >= recall).all()


@pytest.mark.parametrize(("ks", "k"), [((5, 10, 20), 10), ((5, 7), 7), ((20, 50), 20), ((10,), 10)])
def test_cut_off_of_the_verdict(ks: tuple[int, ...], k: int) -> None:
    assert main_k(ks) == k


@pytest.mark.parametrize(
    ("low", "high", "outcome"),
    [
        (0.1, 0.2, "better"),
        (-0.2, -0.1, "worse"),
        (-0.1, 0.1, "none"),
        (0.0, 0.2, "none"),
        (-0.1, 0.0, "none"),
    ],
)
def test_an_interval_that_touches_0_shows_no_difference(low: float, high: float, outcome: str) -> None:
    assert outcome_of(Interval((low + high) / 2, low, high)) == outcome


def test_slices_follow_the_target() -> None:
    per_user = pd.DataFrame(
        {"user_id": list("abc"), "item_id": list("xyz"), "bucket": ["head", "tail", "cold"]}
    )
    items = pd.DataFrame({"item_id": list("xyz"), "is_long_tail": [False, True, False]})
    masks = slice_masks(per_user, items)
    assert masks["overall"].tolist() == [True, True, True]
    assert masks["tail"].tolist() == [False, True, False]
    assert masks["cold"].tolist() == [False, False, True]
    assert masks["long_tail"].tolist() == [False, True, False]
    assert not masks["mid"].any()


def test_means_equal_the_metrics_files_in_every_bucket(inputs: ReportInputs) -> None:
    results = compute_results(inputs)
    for run, content in inputs.metrics.items():
        slices = {"overall": content["overall"]} | content["buckets"]
        for (slice_name, metric), value in results.means[run].items():
            assert value == pytest.approx(slices[slice_name][metric])
        assert results.n_users["tail"] == content["buckets"]["tail"]["n_users"]


def test_differences_are_those_of_the_paired_bootstrap(inputs: ReportInputs) -> None:
    results = compute_results(inputs)
    one, other = (
        inputs.per_user["swing", arm]["rank"].between(1, 10).to_numpy(dtype=float)
        for arm in ("llm_i2i", "real")
    )
    expected = paired_bootstrap(one, other, resamples=500, seed=inputs.params.seed)
    assert results.differences["swing", "llm_i2i"]["overall", "recall@10"] == expected
    assert expected.mean == pytest.approx(
        results.means["swing", "llm_i2i"]["overall", "recall@10"]
        - results.means["swing", "real"]["overall", "recall@10"]
    )
    assert not any(arm == "real" for _, arm in results.differences)


def test_no_interval_for_a_handful_of_users(inputs: ReportInputs) -> None:
    results = compute_results(inputs)
    few = {name for name, n in results.n_users.items() if n < MIN_USERS}
    assert "cold" in few
    shown = {name for by_key in results.differences.values() for name, _ in by_key}
    assert not shown & few


def test_summary_has_every_metric_and_is_json(report: Report, inputs: ReportInputs) -> None:
    assert json.loads(json.dumps(report.summary)) == report.summary
    assert report.summary["protocol_hash"] == inputs.protocol_hash
    names = {
        f"{part}{metric}@{k}"
        for part in ("", "tail_", "long_tail_")
        for metric in ("recall", "ndcg")
        for k in (5, 10, 20)
    }
    assert set(report.summary["differences"]["bpr"]["llm_i2i"]) == names
    assert names < set(report.summary["results"]["bpr"]["real"])
    assert report.summary["results"]["swing"]["real"]["coverage@10"] > 0
    interval = report.summary["differences"]["swing"]["llm_i2i"]["recall@10"]
    assert interval["low"] <= interval["mean"] <= interval["high"]
    assert "real" not in report.summary["differences"]["swing"]


def test_summary_does_not_depend_on_runtime_or_revision(
    tmp_path, inputs: ReportInputs, report: Report
) -> None:
    again = collect(write_run(tmp_path))
    for file in (tmp_path / "reports" / "runtime").glob("*.json"):
        file.unlink()
    bare = collect(tmp_path)
    assert (
        summarize(again, compute_results(again)) == summarize(bare, compute_results(bare)) == report.summary
    )


def test_without_a_baseline_there_is_no_difference(tmp_path) -> None:
    inputs = collect(write_run(tmp_path, models=("swing",), arms=("llm_i2i",)))
    results = compute_results(inputs)
    assert results.differences == {}
    assert results.verdicts["swing"][0].outcome == "unknown"
    assert summarize(inputs, results)["differences"] == {}
