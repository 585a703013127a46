"""Values become cells by the format of their column, and texts.yaml and code know the same names."""

import re
from pathlib import Path

import pytest

from llm_i2i.evaluation.bootstrap import Interval
from llm_i2i.reporting import tables
from llm_i2i.reporting.tables import Cell, difference_cell, markdown_table, view
from llm_i2i.reporting.words import say, texts
from tests.conftest import ROOT

SOURCES = [*Path(tables.__file__).parent.glob("*.py"), ROOT / "benchmarks/forecast_plot.py"]
SOURCE = "\n".join(path.read_text(encoding="utf-8") for path in SOURCES)


def test_values_are_formatted_by_their_column() -> None:
    rows = [("real", "synthetic", 12345, None, 0.117), ("b", "c", 1, Cell("x", ("y",)), float("nan"))]
    shown = view("kept", rows)
    assert [cell.text for cell in shown.rows[0]] == ["real", "synthetic", "12,345", "–", "11.7 %"]
    assert [cell.number for cell in shown.rows[0]] == [False, False, True, True, True]
    assert (shown.rows[1][3], shown.rows[1][4].text) == (Cell("x", ("y",)), "–")
    assert "| real | synthetic | 12,345 | – | 11.7 % |" in markdown_table(shown)
    assert "| b | c | 1 | x<br>y | – |" in markdown_table(shown)


def test_columns_of_a_run_stand_in_their_place_and_groups_keep_their_order() -> None:
    shown = view("main", {"All": [("a", 0.5)], "Tail": [("b", None)]}, columns=[("X", ".4f")], legend="", min_users=3)
    assert shown.header == ("Model, arm", "X")
    assert [group.label for group in shown.groups] == ["All", "Tail"]
    assert shown.wide
    assert shown.sticky
    assert "fewer than 3 test users" in shown.caption


def test_a_difference_shows_its_interval_and_outcome() -> None:
    better = difference_cell(Interval(0.02, 0.01, 0.03), value=0.5)
    assert better == Cell("0.5000", ("▲ +0.0200", "[+0.0100, +0.0300]"), "better")
    assert difference_cell(Interval(-0.02, -0.03, 0.0)) == Cell("○ −0.0200", ("[−0.0300, 0.0000]",), "none")
    assert difference_cell(None).text == "–"
    assert difference_cell(None, value=0.5) == Cell("0.5000")


@pytest.mark.parametrize(("kind", "call"), [("tables", "view"), ("sentences", "say|told"), ("plots", "draw_plot")])
def test_every_text_is_used_and_every_used_text_is_there(kind: str, call: str) -> None:
    asked = set(re.findall(rf'(?:{call})\(\s*(?:draw,\s*)?"([a-z_-]+)"', SOURCE))
    assert asked <= set(texts()[kind])
    quoted = set(re.findall(r'"([a-z_-]+)"', SOURCE))
    composed = {f"{who}_{what}" for who in ("paper", "recipe") for what in ("enough", "less")}
    outcomes = ("better", "worse", "none")
    composed |= {f"control_{outcome}" for outcome in outcomes} | {
        f"card_{outcome}" for outcome in (*outcomes, "unknown")
    }
    composed |= {f"{what}_{page}" for what in ("title", "link") for page in ("judge", "published")}
    assert set(texts()[kind]) <= quoted | composed


def test_a_sentence_without_its_values_is_an_error() -> None:
    with pytest.raises(KeyError, match="n_users"):
        say("few_users", arm="llm_i2i")
