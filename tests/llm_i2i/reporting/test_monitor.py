"""The page's section of facts over runs."""

import dataclasses
import xml.etree.ElementTree as ET

import pytest

from llm_i2i.monitoring.drift import Found, Watch
from llm_i2i.reporting.collect import ReportInputs
from llm_i2i.reporting.monitor import monitor_part
from llm_i2i.reporting.report import build_report

WATCH = Watch(
    (
        Found("rows", 100.0, (90.0, 110.0, 95.0), 60.0, 160.0, ignored=False),
        Found("duplicates", 0.5, (), None, 0.1, ignored=False),
        Found("coverage", 0.1, (0.5, 0.5, 0.5), 0.3, None, ignored=True),
        Found("gini", 0.0, (0.0,), None, None, ignored=False),
    ),
    n_data=3, n_recipe=3, min_runs=7,
)  # fmt: skip


def test_the_page_has_a_line_for_each_fact_and_alarms_come_first(inputs: ReportInputs) -> None:
    report = build_report(dataclasses.replace(inputs, watch=WATCH))
    section = report.html.partition('id="monitor"')[2].partition("</section>")[0]
    assert section.count("<polyline") == len(WATCH.found)
    assert section.count("var(--bad)") == 1
    rows = section.partition("<tbody>")[2]
    assert rows.index("interactions that occur twice") < rows.index("<bdi>interactions</bdi>")
    assert "3 earlier run(s) of this data, 3 of this recipe; with fewer" in section
    assert "interactions that occur twice: 0.5, allowed at most 0.1" in section
    assert "## Run against run" in report.markdown
    assert "<svg" not in report.markdown
    assert 'href="#monitor"' in report.html


@pytest.mark.parametrize("one", WATCH.found, ids=lambda one: one.name)
def test_a_line_stays_inside_its_frame(one: Found) -> None:
    (table,) = monitor_part(Watch((one,), 3, 3, 3))["tables"]
    svg = ET.fromstring(table.rows[0][1].svg)
    _, _, width, height = map(float, svg.attrib["viewBox"].split())
    dots = [tuple(map(float, dot.split(","))) for dot in svg.find("polyline").attrib["points"].split()]
    assert len(dots) == len(one.earlier) + 1
    assert all(0 <= x <= width and 0 <= y <= height for x, y in dots)
    band = {name: float(svg.find("rect").attrib[name]) for name in ("y", "height")}
    assert band["y"] >= 0
    assert band["y"] + band["height"] <= height + 0.1
    inside = band["y"] - 0.1 <= dots[-1][1] <= band["y"] + band["height"] + 0.1
    assert inside or one.drifts


def test_without_facts_there_is_no_section(inputs: ReportInputs) -> None:
    assert 'id="monitor"' not in build_report(inputs).html
