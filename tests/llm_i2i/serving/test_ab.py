import io
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_i2i import cli
from llm_i2i.data.sources import read_raw
from llm_i2i.errors import DataError
from llm_i2i.serving.ab import difference, interactions, rate, report
from llm_i2i.serving.arms import Split


def event(arm: str, unit: str | int, kind: str, **more) -> dict:
    unit = unit if isinstance(unit, str) else f"{unit:016x}"
    return {"type": kind, "recommendation_id": f"{arm}.{'0' * 16}.{unit}.{'1' * 16}", "item_id": "i"} | more


def test_newcombes_own_examples():
    """Newcombe 1998, table II, method 10: 56/70 against 48/80, 9/10 against 3/10, 10/10 against 0/20."""
    for first, second, low, high in (
        ((48, 80), (56, 70), 0.0524, 0.3339),
        ((3, 10), (9, 10), 0.1705, 0.8090),
        ((0, 20), (10, 10), 0.6791, 1.0),
    ):
        assert np.allclose(difference(rate(*first), rate(*second))[1:], (low, high), atol=5e-5)


def test_wilsons_interval():
    assert np.allclose(rate(81, 263)[3:], (0.2553, 0.3662), atol=5e-5)  # Newcombe 1998, Statistics in Medicine 17, 857
    assert np.allclose(rate(0, 20)[3:], (0.0, 0.1611), atol=5e-5)


@given(st.integers(0, 30), st.integers(0, 30))
def test_a_difference_turned_round_is_its_negative(one, other):
    first, second = rate(one, 30), rate(other, 30)
    value, low, high = difference(first, second)
    assert np.allclose(difference(second, first), (-value, -high, -low))
    assert -1 <= low <= value <= high <= 1


def test_intervals_hold_the_true_difference_as_often_as_they_say():
    rng = np.random.default_rng(0)
    pairs = [difference(rate(a, 200), rate(b, 200)) for a, b in rng.binomial(200, [0.1, 0.16], (400, 2)).tolist()]
    assert 0.92 < np.mean([low <= 0.06 <= high for _, low, high in pairs]) < 0.98


def test_users_count_once_and_only_where_they_were_shown_something():
    told = report(
        [
            *[event("a", user, "impression") for user in (1, 1, 2, 3, 4)],
            *[event("a", 1, "click") for _ in range(5)],
            event("a", 1, "purchase"),
            event("a", 9, "click"),  # nothing was shown
            *[event("b", user, "impression") for user in (5, 6)],
            event("b", 5, "click"),
            event("b", 6, "click"),
            *[event(arm, 7, "impression") for arm in "ab"],  # the split was changed
            event("a", "none", "impression"),
            event("b", "chosen", "click"),
        ]
    )
    assert {arm: found[:2] for arm, found in told.rates["click"].items()} == {"a": (1, 4), "b": (2, 2)}
    assert {arm: found[:2] for arm, found in told.rates["purchase"].items()} == {"a": (1, 4), "b": (0, 2)}
    assert list(told.left_out.values()) == [1, 1, 1, 1]


def test_nothing_to_compare_is_an_error():
    for events in ([], [event("a", "none", "impression")]):
        with pytest.raises(DataError, match="no user was shown anything"):
            report(events)


def test_the_report_of_a_service(open_shop, tmp_path, capsys):
    """Two arms; whoever is in the second clicks, and nobody else."""
    stores, shares = dict.fromkeys("ab", str(open_shop.store)), {"a": 0.5, "b": 0.5}
    with open_shop.client(stores=stores, shares=shares, events=str(tmp_path)) as client:
        for n in range(30):
            told = client.post("/v1/recommend", json={"user_id": f"u{n}", "k": 1}).json()
            one = {"recommendation_id": told["recommendation_id"], "item_id": told["items"][0]["item_id"]}
            kinds = ["impression", *(["click"] if told["arm"] == "b" else [])]
            client.post("/v1/events", json={"events": [one | {"type": kind} for kind in kinds]})
    assert cli.main(["ab-report", "--events", str(tmp_path)]) == 0
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    n_b = sum(Split(shares).of(f"u{n}")[0] == "b" for n in range(30))
    assert rows[1][:4] == ["a", "0", str(30 - n_b), "0.0000"]
    assert rows[2][:4] == ["b", str(n_b), str(n_b), "1.0000"]
    assert rows[2][5] == "+1.0000"
    assert len(rows) == 6
    assert cli.main(["ab-report", "--events", str(tmp_path / "none")]) == 2


@pytest.mark.parametrize(
    ("header", "row", "unit"),
    [
        ("user_id,item_id,rating,timestamp", "u1,i1,5,1600000000", 1),
        ("timestamp,item_id,user_id", "1600000000000,i1,u1", 1_000),
    ],
)
def test_purchases_become_rows_of_the_data(tmp_path, header, row, unit, capsys):
    path = tmp_path / "interactions.csv"
    path.write_text(f"{header}\n{row}\n", encoding="utf-8")
    (tmp_path / "items.csv").write_text('item_id,title\ni1,A\n"i,2",B\n', encoding="utf-8")
    bought = {"user_id": "u1", "item_id": "i1", "timestamp": 1_600_000_000}
    events = [
        event("a", 1, "purchase", **bought),  # is there
        *[event("a", 1, "purchase", **bought | {"item_id": "i,2", "timestamp": 1_700_000_000}) for _ in range(2)],
        event("a", 1, "purchase", timestamp=1_700_000_000),  # by whom?
        event("a", 1, "click", **bought | {"item_id": "i2"}),
    ]
    (tmp_path / "1.jsonl").write_text(json.dumps({"received": 1, "events": events}) + "\n", encoding="utf-8")
    options = ["events-to-interactions", "--events", str(tmp_path), "--data", str(tmp_path)]
    if "rating" in header:
        assert cli.main(options) == 2
        assert "--rating: is missing" in capsys.readouterr().err
        options += ["--rating", "4"]
    assert cli.main(options) == 0
    rows = capsys.readouterr().out
    assert rows.count("\n") == 1
    path.write_text(path.read_text(encoding="utf-8") + rows, encoding="utf-8")
    last = read_raw(tmp_path).interactions.iloc[-1]
    assert (last["user_id"], last["item_id"], last["timestamp"]) == ("u1", "i,2", 1_700_000_000 * unit)
    assert cli.main(options) == 0
    assert capsys.readouterr().out == ""  # all of it is there now


def test_data_without_times_takes_no_purchases(tmp_path):
    (tmp_path / "interactions.csv").write_text("user_id,item_id,position\nu,i,0\n", encoding="utf-8")
    (tmp_path / "items.csv").write_text("item_id,title\ni,A\n", encoding="utf-8")
    with pytest.raises(DataError, match="cannot be appended"):
        interactions([], tmp_path, io.StringIO())
