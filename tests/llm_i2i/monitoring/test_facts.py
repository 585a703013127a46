import numpy as np
import pandas as pd
import pytest

from llm_i2i.data.sources import RawTables
from llm_i2i.monitoring.facts import day_facts, fused_facts, run_facts, stability_index

DAY = 86_400


def tables(rows: list[tuple[str, str, int]], n_items: int = 4, **more) -> RawTables:
    interactions = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"])
    ids = [f"i{n}" for n in range(n_items)]
    items = pd.DataFrame({"item_id": ids, "title": ["a", " ", None, "d"][:n_items]})
    return RawTables(interactions, items, **{"order": "timestamp", **more})


def test_facts_of_a_table_by_hand():
    rows = [("u", "i0", 1), ("u", "i0", 1), ("u", "i0", 5), ("u", "i1", 5), ("v", "i0", 5), ("v", "i3", 7)]
    found = run_facts(tables(rows))
    expected = {
        "rows": 6, "users": 2, "items": 4, "duplicates": 1 / 6, "repeats": 1 / 6, "titles_missing": 0.5,
        "heaviest_user": 4 / 6, "top_item": 4 / 6, "top_percent": 4 / 6, "user_rows": 3.0, "same_time": 3 / 6,
        "ticks": 1,
        # Counts 0, 1, 1, 4: 2 (2 x 1 + 3 x 1 + 4 x 4) / (4 x 6) - 5 / 4.
        "gini": 0.5,
    }  # fmt: skip
    assert found == {name: round(value, 6) for name, value in expected.items()}


def test_positions_are_no_times():
    found = run_facts(tables([("u", "i0", 1), ("v", "i1", 1)], order="position"))
    assert not {"same_time", "ticks", "day_rows"} & found.keys()


def test_the_clock_is_told():
    assert run_facts(tables([("u", "i0", 1), ("v", "i1", 1)], unit="milliseconds"))["ticks"] == 1000


def test_facts_of_the_newest_day_by_hand():
    """Five weeks of 400 rows a day by ten users on twenty items, then a day of 200 with news."""
    user, item = np.tile(np.arange(10), 40), np.tile(np.arange(20), 20)
    day = np.repeat(np.arange(36), 400)
    users, items = np.tile(user, 36), np.tile(item, 36)
    newest = {"user": np.r_[np.repeat(3, 100), np.repeat(50, 100)], "item": np.r_[np.repeat(0, 150), np.repeat(99, 50)]}
    found = day_facts(np.r_[users, newest["user"]], np.r_[items, newest["item"]], np.r_[day, np.full(200, 37)])
    assert found["day_shift"] > 0.5
    del found["day_shift"]
    assert found == {
        "day_rows": 0.5, "day_gap": 2, "day_new_users": 0.5, "day_new_items": 0.25, "day_heaviest_user": 0.5,
        "day_top_item": 0.75,
    }  # fmt: skip


def test_few_rows_a_day_tell_nothing():
    n = 199 * 36
    day = np.repeat(np.arange(36), 199)
    assert day_facts(np.zeros(n, int), np.zeros(n, int), day) == {}
    assert day_facts(np.zeros(9000, int), np.zeros(9000, int), np.repeat(np.arange(3), 3000)) == {}  # no week before


def test_stability_index_by_hand():
    """Ten items, one bin each: one falls from a tenth to nothing, another takes its place."""
    before, now = np.full(10, 100_000), np.r_[np.full(8, 100_000), 0, 200_000]
    assert stability_index(before, before) == pytest.approx(0.0, abs=1e-9)
    # Shares 0.1 to 0 and 0.1 to 0.2, a hundredth more in each of eleven bins.
    expected = (0.1 * np.log(0.21 / 0.11) - 0.1 * np.log(0.01 / 0.11)) / 1.11
    assert stability_index(before, now) == pytest.approx(expected)


def kept(arm: str, synthetic: int) -> dict:
    by_bucket = {
        name: {"synthetic": n} for name, n in zip(("head", "mid", "tail", "cold"), (synthetic, 0, 0, 0), strict=True)
    }
    share = synthetic / 1000
    return {"arm": arm, "rows": 2000, "synthetic_in": 1000, "synthetic_kept": synthetic, "share_kept_synthetic": share,
            "by_bucket": by_bucket}  # fmt: skip


def test_acceptance_by_bucket_where_enough_was_proposed():
    synthesis = {"by_bucket": {"head": 800, "mid": 199}}
    found = fused_facts(kept("llm_i2i", 400), synthesis)
    assert found == {"synthetic_share": 0.2, "accepted": 0.4, "accepted_head": 0.5}
    assert fused_facts(kept("item_knn", 400), synthesis) == {"synthetic_share": 0.2, "accepted": 0.4}
    assert fused_facts({**kept("real", 0), "synthetic_in": 0}, synthesis) == {"synthetic_share": 0.0}
