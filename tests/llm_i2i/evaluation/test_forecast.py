"""Facts and line of the forecast, by hand."""

import math
from dataclasses import asdict

import pandas as pd
import pytest

from llm_i2i.data.long_tail import tag_items
from llm_i2i.data.split import split_interactions
from llm_i2i.evaluation.forecast import Basis, data_facts
from llm_i2i.params import Params, read_profile
from tests.conftest import ROOT

# Two last letters: valid and test. Swing: u and v share a and b in train, no other two users share two items.
HISTORIES = {"u": "abcd", "v": "abdc", "w": "acbe", "x": "cdae"}
FACTS = {"interactions": 1000, "density": 0.01, "per_user": 5.0, "per_item": 4.0, "reachable": 1.0}


def row(name: str, part: str, gain: float, **facts: float) -> dict[str, object]:
    ends = {"mean": gain, "low": gain - 0.1, "high": gain + 0.1}
    return {"name": name, "data": "toys", "part": part, "facts": FACTS | facts, "gain": ends}


@pytest.mark.parametrize("encoded", [False, True])
def test_facts_by_hand(encoded: bool) -> None:
    values = read_profile("compact", ROOT)
    values["tag"]["tail_max_count"] = 1
    params = Params.model_validate(values)
    rows = [(user, item, at) for user, items in HISTORIES.items() for at, item in enumerate(items)]
    table = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"])
    if encoded:
        table = table.astype({"user_id": "category", "item_id": "category"})
    split = split_interactions(table, params=params.split, seed=1)
    catalogue = pd.DataFrame({"item_id": list("abcdef"), "title": list("ABCDEF")})
    items = tag_items(catalogue, split.train, params=params.tag, seed=1)
    # Train: a 3, b 2, c 2, d 1. Valid: u c, v d, w b (by way of a), x a; only b is reached, and d is in the tail.
    assert asdict(data_facts(split, items, params=params)) == {
        "users": 4, "items": 5, "interactions": 16, "density": 0.8, "per_user": 4.0, "per_item": 3.2,
        "tail_items": 0.25, "tail_targets": 0.25, "reachable": 0.25, "reachable_tail": 0.0,
    }  # fmt: skip


def line(*checks: dict[str, object]) -> Basis:
    """Log(1 + gain) 0, .2 and .1 at x = 0, 1 and 2: slope .05, mean .1, residuals -.05, .1 and -.05."""
    fitted = [row(f"fit{x}", "fit", math.expm1(y), per_item=math.exp(x)) for x, y in enumerate((0.0, 0.2, 0.1))]
    return Basis([*fitted, *checks], "per_item")


def test_the_line_and_its_interval_by_hand() -> None:
    at_mean, at_end, beyond = ([*map(math.log1p, line().gain({"per_item": math.exp(x)}))] for x in (1, 2, 4))
    t = 12.7062047  # 97.5 % of t with one degree of freedom
    half = t * math.sqrt(0.015 * (1 + 1 / 3))
    assert at_mean == pytest.approx([0.1, 0.1 - half, 0.1 + half])
    half = t * math.sqrt(0.015 * (1 + 1 / 3 + 1 / 2))
    assert at_end == pytest.approx([0.15, 0.15 - half, 0.15 + half])
    assert beyond == at_end  # no extrapolation


def test_rows_held_back_do_not_move_the_line_and_are_counted() -> None:
    less, middle, more = ({"per_item": math.exp(x)} for x in (0.5, 1, 1.5))
    basis = line(
        row("right", "check", 0.5, **less), row("wrong", "check", -0.1, **middle), row("far", "check", 9, **more)
    )
    assert basis.gain(middle) == line().gain(middle)
    assert basis.checked() == {
        "n": 3, "right_in_sign": 2, "wrong": ["wrong"], "in_interval": 2,
        "rank_correlation": 0.5,  # ranks 1 2 3 and 2 1 3: 1 - 6 x 2 / (3 x 8)
    }  # fmt: skip


def test_nearest_is_by_the_logarithm_and_outside_names_what_lies_beyond() -> None:
    basis = line(row("whole", "whole", 0.2, per_item=math.exp(1.6), interactions=9000))
    assert [near["name"] for near in basis.nearest({"per_item": math.exp(1.5)}, 2)] == ["whole", "fit1"]
    inside = FACTS | {"per_item": 2.0}
    assert basis.outside(inside) == {}
    assert basis.outside(inside | {"interactions": 9001, "density": 0.02, "per_item": 0.5}) == {
        "interactions": (1000, 9000),
        "density": (0.01, 0.01),
        "per_item": (1.0, math.exp(2)),
    }


def test_a_share_of_zero_has_a_forecast() -> None:
    basis = Basis([row(str(x), "fit", x, reachable=x) for x in (0.0, 0.1, 0.4)], "reachable")
    assert math.isfinite(basis.gain({"reachable": 0.0}).mean)
