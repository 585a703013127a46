"""`python -m pipelines forecast`: never without its basis, and the committed basis keeps what is said of it."""

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.forecast_plot import plot_gains
from llm_i2i.params import load_params
from pipelines import forecast
from pipelines.__main__ import main
from tests.conftest import ROOT

CONTENT = json.loads((ROOT / forecast.BASIS).read_text(encoding="utf-8"))
COMMITTED = forecast.read_basis(ROOT / forecast.BASIS)
PARAMS = load_params(ROOT / "params.yaml")
HISTORIES = {"u": "abcd", "v": "abdc", "w": "acbe", "x": "cdae"}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project folder with four users."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "profiles", "profiles")
    shutil.copy2(ROOT / "params.yaml", ".")
    forecast.BASIS.parent.mkdir(parents=True)
    shutil.copy2(ROOT / forecast.BASIS, forecast.BASIS)
    Path("data").mkdir()
    rows = [f"{user},{item},{at}" for user, items in HISTORIES.items() for at, item in enumerate(items)]
    Path("data/interactions.csv").write_text("\n".join(["user_id,item_id,position", *rows]) + "\n")
    Path("data/items.csv").write_text("\n".join(["item_id,title", *(f"{item},{item}" for item in "abcde")]) + "\n")
    return tmp_path


def test_it_prints_facts_forecast_and_basis(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["forecast"]) == 0
    told = capsys.readouterr().out
    for line in ("| users | 4 |", "| interactions | 16 |", "| density | 80.000 % |", "| interactions per item | 3.2 |",
                 "| valid targets that Swing reaches | 25.0 % |"):  # fmt: skip
        assert line in told
    assert "\nForecast: a gain is" in told
    assert "Outside what was measured: density, 80.000 % here" in told


def test_bad_data_are_one_error(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("data/interactions.csv").write_text("user_id,item_id\nu,a\n")
    assert main(["forecast"]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert "interactions.csv" in told.err
    assert "Traceback" not in told.err


def test_without_a_basis_there_is_no_forecast(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    forecast.BASIS.unlink()
    assert main(["forecast"]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert "git checkout" in told.err


@given(st.fixed_dictionaries({name: st.floats(0.0, 1e9) for name in forecast.WORDS}))
def test_a_forecast_always_has_its_basis(facts: dict[str, float]) -> None:
    told = "\n".join(forecast.lines(facts, COMMITTED, PARAMS))
    basis = told.partition("Forecast: ")[2].partition("\nBasis: ")[2]
    assert f"measured on {len(COMMITTED.part('fit'))} sub-samples of 3 data sets" in basis
    assert f"Of {CONTENT['check']['n']} other sub-samples, held back, {CONTENT['check']['right_in_sign']} were" in basis
    assert sum(f"- {row['name']} (" in basis for row in COMMITTED.rows) == forecast.NEAREST
    assert ("Outside what was measured" in basis) == bool(COMMITTED.outside(facts))


def test_the_committed_basis_holds_its_bar() -> None:
    assert CONTENT["check"] == COMMITTED.checked()
    assert len(COMMITTED.part("fit")) >= 10
    assert CONTENT["check"]["n"] >= 10
    assert CONTENT["check"]["right_in_sign"] >= 0.8 * CONTENT["check"]["n"]
    assert len({row["name"] for row in COMMITTED.rows}) == len(COMMITTED.rows)


def test_the_plot_is_that_of_the_basis() -> None:
    fact = forecast.WORDS[COMMITTED.fact][0]
    assert plot_gains(COMMITTED, fact=fact).svg == (ROOT / "docs/forecast.svg").read_text(encoding="utf-8")
