import dataclasses
import json
from typing import Any

import pytest

from llm_i2i.evaluation.bootstrap import Interval
from llm_i2i.reporting.collect import BENCHMARK, ReportInputs, read_benchmark
from llm_i2i.reporting.no_gain import no_gain_of_swing
from llm_i2i.reporting.report import Report, build_report
from llm_i2i.reporting.results import Results
from tests.conftest import ROOT

ALL = ("overall", "recall@10")
RUN = ("swing", "llm_i2i")
COMMITTED = ROOT / "reports" / "benchmark"


@pytest.fixture(scope="module")
def dense(inputs: ReportInputs) -> ReportInputs:
    """A run whose pairs opened nothing and helped some users as much as they hurt others; committed results."""
    real = inputs.per_user["swing", "real"]
    per_user = inputs.per_user | {RUN: real.assign(rank=real["rank"].sample(frac=1.0, random_state=0).to_numpy())}
    metrics = inputs.metrics | {RUN: inputs.metrics[RUN] | {"reachable_share": 0.7646}}
    metrics["swing", "real"] = metrics["swing", "real"] | {"reachable_share": 0.7678}
    return dataclasses.replace(inputs, benchmark=read_benchmark(COMMITTED), per_user=per_user, metrics=metrics)


def results(mean: float = 0.0, half: float = 0.004, tail: int = 12) -> Results:
    interval = Interval(mean, mean - half, mean + half)
    return Results({}, {RUN: {ALL: interval}}, {"overall": 943, "tail": tail}, "recall@10", "llm_i2i")


def rows_of(dataset: str, **wanted: str) -> list[dict[str, Any]]:
    content = json.loads((COMMITTED / dataset / "ablation.json").read_text(encoding="utf-8"))
    wanted |= {"model": "swing", "metric": "recall@10"}
    return [row for row in content["rows"] if wanted.items() <= row.items()]


def test_it_says_why_out_of_the_run_and_what_sparse_data_gain_out_of_committed_results(dense: ReportInputs) -> None:
    told = no_gain_of_swing(dense, results())
    assert told is not None
    (best,) = rows_of("toys", point="our recipe", arm="llm_i2i", slice="tail", against="arm real")
    median = dense.items["n_train"].median()
    for words in (
        f"half of its items have {median:g} training interactions or more",
        "only 12 of 943 test targets (1.3 %)",
        "76.8 % of the targets can be reached with real data alone, 76.5 % with the LLM's",
        f"as there (+{best['difference']:.4f})",
        f"rise by {best['difference'] * 12 / 943:.4f}, less than the 0.0040",
    ):
        assert words in told["text"]
    for dataset in ("beauty", "toys"):
        real, tail = (rows_of(dataset, arm="real", slice=part, against="")[0] for part in ("overall", "tail"))
        share = f"{100 * tail['n_users'] / real['n_users']:.1f} %"
        assert (f"against {share} on {dataset.capitalize()}" in told["text"]) == (dataset == "toys")
        for point, name in (("paper", "the paper's selection"), ("our recipe", "our recipe")):
            (row,) = rows_of(dataset, point=point, arm="llm_i2i", slice="overall", against="")
            gain = 100 * (row["value"] / real["value"] - 1)
            line = f"goes from {real['value']:.4f} to {row['value']:.4f} (+{gain:.2f} %) with {name}"
            assert [point for point in told["points"] if point.startswith(dataset.capitalize()) and line in point]
    (table,) = told["tables"]
    names = ["real", "llm_i2i (the paper's selection)", "llm_i2i (our recipe)"]
    assert [row[0].text for row in table.rows] == [f"{data}, {name}" for data in ("Beauty", "Toys") for name in names]


def test_page_and_markdown_show_it(dense: ReportInputs, report: Report) -> None:
    shown = build_report(dense)
    assert 'href="#no_gain">Why Swing gains nothing here</a>' in shown.html
    assert "## Why Swing gains nothing here" in shown.markdown
    assert "Toys, llm_i2i (our recipe)" in shown.html
    assert r"Toys, llm\_i2i (our recipe)" in shown.markdown
    assert "no_gain" not in report.html
    assert "gains nothing" not in report.markdown


@pytest.mark.parametrize(
    "found",
    [
        results(mean=0.005),  # it gains
        results(half=0.0004),  # so many users would show what the tail may give
        results(tail=400),  # a large tail
    ],
)
def test_where_there_may_be_a_gain_nothing_is_said(dense: ReportInputs, found: Results) -> None:
    assert no_gain_of_swing(dense, found) is None


def test_where_more_can_be_reached_nothing_is_said(dense: ReportInputs) -> None:
    real = dense.per_user["swing", "real"]
    few = real.assign(rank=real["rank"].where(real.index % 10 > 0, 0))
    opened = dataclasses.replace(dense, per_user={("swing", "real"): few, RUN: real})
    assert no_gain_of_swing(opened, results()) is None
    closed = dataclasses.replace(dense, per_user={("swing", "real"): real, RUN: few})
    assert no_gain_of_swing(closed, results()) is not None


def test_without_committed_gains_or_without_swing_nothing_is_said(dense: ReportInputs) -> None:
    assert no_gain_of_swing(dataclasses.replace(dense, benchmark={}), results()) is None
    assert no_gain_of_swing(dense, dataclasses.replace(results(), differences={})) is None


def test_the_committed_results_come_in_the_documents_order(tmp_path) -> None:
    found = read_benchmark(COMMITTED)
    assert list(found) == ["beauty", "toys"]
    assert list(found["beauty"]) == list(BENCHMARK)
    assert read_benchmark(tmp_path) == {}
