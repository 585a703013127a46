import re
import xml.etree.ElementTree as ET

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from llm_i2i.evaluation.bootstrap import Interval
from llm_i2i.reporting.collect import ReportInputs
from llm_i2i.reporting.plots import (
    MARKS,
    plot_bucket_counts,
    plot_differences,
    plot_long_tail,
    plot_p_yes,
    plot_reliability,
    plot_training,
)
from llm_i2i.reporting.svg import Plot


def _plots(inputs: ReportInputs) -> list[Plot]:
    rows = {"Swing\n<arm> & co": {"all": Interval(0.1, -0.1, 0.3), "tail": Interval(0.0, 0.0, 0.0)}}
    log = pd.DataFrame({"step": [1, 2, 3], "loss": [3.0, 2.0, 1.5]})
    assert inputs.held_out is not None
    return [
        plot_differences(rows, metric="Recall@10", against="arm real", name="differences"),
        plot_p_yes(inputs.scored, threshold=0.5),
        plot_reliability(inputs.held_out["reliability"]),
        plot_training({"generator": log}, column="loss", label="loss", name="loss"),
        plot_long_tail(inputs.items),
        plot_bucket_counts(pd.DataFrame({"real": [5, 3, 2, 0]}, index=["head", "mid", "tail", "cold"])),
    ]


def test_plots_are_well_formed_self_contained_and_the_same_each_time(inputs: ReportInputs) -> None:
    before = dict(mpl.rcParams)
    first, second = _plots(inputs), _plots(inputs)
    assert first == second
    assert dict(mpl.rcParams) == before
    for plot in first:
        root = ET.fromstring(plot.svg)
        assert root.get("role") == "img"
        assert [child.tag for child in root][:2] == ["title", "desc"]
        assert "http" not in plot.svg
        assert "<style" not in plot.svg
        assert "var(--ink" in plot.svg
        assert "DejaVu" not in plot.svg
        assert all(node.get("id", plot.name).startswith(plot.name) for node in root.iter())
        assert plot.alt
        assert plot.caption


def test_labels_are_escaped(inputs: ReportInputs) -> None:
    assert "&lt;arm&gt; &amp; co" in _plots(inputs)[0].svg


def test_marks_stand_on_what_is_drawn() -> None:
    bins = [{"n": 4, "mean_p_yes": 0.25, "share_yes": 0.5}, {"n": 9, "mean_p_yes": 0.75, "share_yes": 1.0}]
    root = ET.fromstring(plot_reliability(bins).svg)
    (points,) = [group for group in root.iter("g") if "PathCollection" in group.get("id", "")]
    circles = list(root.iter("circle"))
    for circle, path in zip(circles, points.iter("path"), strict=True):
        corners = np.array(re.findall(r"[\d.]+", path.get("d", "")), dtype=float).reshape(-1, 2)
        centre = (corners.min(axis=0) + corners.max(axis=0)) / 2
        assert [float(circle.get(name, "")) for name in ("cx", "cy")] == pytest.approx(list(centre), abs=0.06)
    assert [circle[0].text for circle in circles] == ["0.25 is 0.50 (4 pairs)", "0.75 is 1.00 (9 pairs)"]


def test_a_long_line_tells_a_few_of_its_values_the_last_among_them() -> None:
    log = pd.DataFrame({"step": np.arange(1, 1001), "loss": np.linspace(3.0, 1.0, 1000)})
    svg = plot_training({"generator": log}, column="loss", label="loss", name="loss").svg
    assert svg.count("<circle") == MARKS
    last = log["loss"].tail(100).mean()
    assert f"<title>generator, step 1,000: {last:.4g}</title>" in svg


@pytest.mark.parametrize("n", [0, 1])
def test_degenerate_inputs_are_drawn(n: int) -> None:
    scored = pd.DataFrame({"source": ["real"] * n, "p_yes": np.full(n, 1.0, dtype=np.float32)})
    assert plot_p_yes(scored, threshold=None).svg
    assert plot_reliability([{"n": n, "mean_p_yes": 0.5, "share_yes": 1.0}]).svg
    log = pd.DataFrame({"step": np.arange(n), "loss": np.ones(n)})
    assert plot_training({"generator": log}, column="loss", label="loss", name="loss").svg
    items = pd.DataFrame({"n_train": [n], "bucket": ["cold"], "title": ["Only one"]})
    assert plot_long_tail(items).svg
