import json

import pytest

from llm_i2i.evaluation.bootstrap import Interval, pooled_difference
from llm_i2i.reporting.collect import ReportInputs, collect
from llm_i2i.reporting.report import Report, build_report
from llm_i2i.reporting.results import MIN_USERS, compute_results, control_pairs, main_k, summarize
from llm_i2i.reporting.sentences import cards
from llm_i2i.reporting.words import outcome_of
from tests.llm_i2i.reporting.run_folder import write_run


@pytest.mark.parametrize(("ks", "k"), [((5, 10, 20), 10), ((5, 7), 7), ((20, 50), 20), ((10,), 10)])
def test_cut_off_of_the_verdict(ks: tuple[int, ...], k: int) -> None:
    assert main_k(ks) == k


@pytest.mark.parametrize(
    ("low", "high", "outcome"),
    [(0.1, 0.2, "better"), (-0.2, -0.1, "worse"), (-0.1, 0.1, "none"), (0.0, 0.2, "none"), (-0.1, 0.0, "none")],
)
def test_an_interval_that_touches_0_shows_no_difference(low: float, high: float, outcome: str) -> None:
    assert outcome_of(Interval((low + high) / 2, low, high)) == outcome


def test_means_equal_the_metrics_files_in_every_bucket(inputs: ReportInputs) -> None:
    results = compute_results(inputs)
    for run, content in inputs.metrics.items():
        slices = {"overall": content["overall"]} | content["buckets"]
        for (slice_name, metric), value in results.means[run].items():
            assert value == pytest.approx(slices[slice_name][metric])
        assert results.n_users["tail"] == content["buckets"]["tail"]["n_users"]


def test_differences_are_those_of_the_bootstrap(inputs: ReportInputs) -> None:
    results = compute_results(inputs)
    one, other = (
        inputs.per_user["swing", arm]["rank"].between(1, 10).to_numpy(dtype=float) for arm in ("llm_i2i", "real")
    )
    expected = pooled_difference([one - other], resamples=500, seed=inputs.params.seed)
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
        for k in (5, 10, 20, 50)
    }
    assert set(report.summary["differences"]["bpr"]["llm_i2i"]) == names
    assert names < set(report.summary["results"]["bpr"]["real"])
    assert report.summary["results"]["swing"]["real"]["coverage@10"] > 0
    interval = report.summary["differences"]["swing"]["llm_i2i"]["recall@10"]
    assert interval["low"] <= interval["mean"] <= interval["high"]
    assert "real" not in report.summary["differences"]["swing"]


def test_summary_does_not_depend_on_runtime_or_revision(tmp_path, inputs: ReportInputs, report: Report) -> None:
    again = collect(write_run(tmp_path))
    for file in (tmp_path / "reports" / "runtime").glob("*.json"):
        file.unlink()
    bare = collect(tmp_path)
    assert summarize(again, compute_results(again)) == summarize(bare, compute_results(bare)) == report.summary


def test_without_a_baseline_there_is_no_difference(tmp_path) -> None:
    inputs = collect(write_run(tmp_path, models=("swing",), arms=("llm_i2i",)))
    results = compute_results(inputs)
    assert results.differences == {}
    assert cards(results)[0].outcome == "unknown"
    assert summarize(inputs, results)["differences"] == {}


def test_llm_arms_are_compared_with_controls_of_equal_volume(tmp_path) -> None:
    arms = ("real", "llm_i2i", "item_knn", "item_knn_filtered", "random", "no_discriminator")
    inputs = collect(write_run(tmp_path, models=("swing", "swing_tuned"), arms=arms))
    results = compute_results(inputs)
    pairs = [("llm_i2i", "item_knn_filtered"), ("llm_i2i", "random"), ("llm_i2i", "item_knn")]
    assert control_pairs(arms, inputs.params.fuse.control_volume) == pairs
    assert control_pairs(arms, "no_discriminator")[1:] == [("no_discriminator", name) for _, name in pairs[1:]]
    assert list(results.against_controls) == [("swing", *p) for p in pairs] + [("swing_tuned", *p) for p in pairs]
    one, other = (inputs.per_user["swing", arm]["rank"].between(1, 10).to_numpy(dtype=float) for arm in pairs[0])
    expected = pooled_difference([one - other], resamples=500, seed=inputs.params.seed)
    assert results.against_controls["swing", *pairs[0]]["overall", "recall@10"] == expected
    assert "llm_i2i - item_knn_filtered" in summarize(inputs, results)["against_controls"]["swing"]
    made = build_report(inputs)
    assert "Against controls" in made.html
    assert "Against controls" in made.markdown
    assert "Swing (tuned)" in made.html
