import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_i2i.data import expectations
from llm_i2i.data.expectations import describe, raise_on_errors, validate_tables
from llm_i2i.data.sources import RawTables
from llm_i2i.errors import DataError
from llm_i2i.schema import TIMESTAMP, encode
from tests.llm_i2i.data.tables import interactions, raw_items, validate_params

SECONDS = 1_000_000_000  # a moment in 2001


def taken(*rows: tuple[str, str, int]) -> pd.DataFrame:
    """Interactions, their seconds counted from that moment."""
    return interactions(*[(user, item, SECONDS + time) for user, item, time in rows])


def good() -> RawTables:
    table = taken(("u1", "a", 1), ("u1", "b", 2), ("u2", "a", 3))
    return RawTables(table, raw_items(item_id=["a", "b"], title=["Apple", "Pear"]), TIMESTAMP)


def check(raw: RawTables, docs_dir: Path | None = None, **limits: float) -> dict[str, Any]:
    return validate_tables(raw, params=validate_params(**limits), tail_max_count=1, docs_dir=docs_dir)


def failed(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in result["expectations"] if not row["success"]}


def only_failure(result: dict[str, Any]) -> dict[str, Any]:
    rows = list(failed(result).values())
    assert len(rows) == 1, failed(result)
    return rows[0]


def test_good_tables(tmp_path: Path) -> None:
    result = check(good(), tmp_path / "docs")
    raise_on_errors(result)
    assert result["success"]
    assert failed(result) == {}
    assert result["counts"] == {
        "interactions": 3,
        "users": 2,
        "items": 2,
        "items_with_interactions": 2,
        "items_with_text": 2,
        "tail_items": 1,
        "order": "timestamp",
    }
    assert {row["table"] for row in result["expectations"]} == {"interactions", "items"}
    keys = {"name", "table", "severity", "success", "unexpected_count", "unexpected_percent", "sample"}
    assert all(set(row) == keys for row in result["expectations"])
    assert "Apple" not in (tmp_path / "docs" / "index.html").read_text(encoding="utf-8")


def test_result_is_json_and_equal_for_equal_input() -> None:
    assert json.dumps(check(good()), allow_nan=False) == json.dumps(check(good()), allow_nan=False)


def test_pages_of_earlier_runs_go_and_other_files_stay(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("kept")
    for _ in range(2):
        check(good(), tmp_path)
    assert len(list((tmp_path / "validations").rglob("*.html"))) == 2  # one a table
    assert (tmp_path / "mine.txt").exists()


def test_unknown_item_is_an_error_that_names_the_row() -> None:
    raw = good()
    raw.interactions.loc[1, "item_id"] = "ghost"
    row = only_failure(check(raw))
    assert (row["severity"], row["unexpected_count"], row["unexpected_percent"]) == ("error", 1, 33.3333)
    assert row["sample"] == [{"row": 2, "user_id": "u1", "item_id": "ghost", "timestamp": SECONDS + 2}]
    with pytest.raises(DataError, match=r"(?s)1 expectation.*every item_id is in the items table, 1 row.*ghost"):
        raise_on_errors(check(raw))


def test_exact_duplicates_are_a_warning() -> None:
    raw = good()
    raw.interactions.loc[1] = raw.interactions.loc[0]
    result = check(raw)
    assert only_failure(result)["severity"] == "warning"
    assert only_failure(result)["unexpected_count"] == 1
    assert result["success"]
    raise_on_errors(result)


def test_rows_that_the_split_drops_are_told_above_a_tenth() -> None:
    """The same item again at another time: the split keeps the first."""
    table = taken(*[(f"u{n}", "a", 1) for n in range(9)], ("u0", "a", 2), ("u1", "b", 1))
    raw = RawTables(table, good().items, TIMESTAMP)
    assert failed(check(raw)) == {}  # 1 of 11
    raw.interactions.loc[10] = ["u1", "a", SECONDS + 5]
    result = check(raw)
    assert only_failure(result)["unexpected_count"] == 2
    assert only_failure(result)["name"].startswith("at most 10 % of rows repeat a user's item")
    raise_on_errors(result)  # a warning


@pytest.mark.parametrize(
    ("times", "share"), [([5, 5, 5, 5, 5, 5], 100.0), ([1, 2, 2, 5, 5, 5], 100.0), ([1, 2, 2, 1, 2, 3], 0.0)]
)
def test_a_test_item_that_a_hash_chooses_is_told_where_it_is_most(times: list[int], share: float) -> None:
    pairs = [(user, item) for user in "uv" for item in "abc"]
    table = taken(*[(*pair, time) for pair, time in zip(pairs, times, strict=True)], ("w", "a", 1))
    raw = RawTables(table, raw_items(item_id=list("abc"), title=list("ABC")), TIMESTAMP)
    found = {name: row["unexpected_percent"] for name, row in failed(check(raw)).items()}
    name = "at most 50 % of users took their last item at the same timestamp as another (a hash chooses the test item)"
    assert found == ({name: share} if share else {})


ID = st.sampled_from(["a", "b", "c", None])


@given(st.lists(st.tuples(ID, ID, st.integers(1, 4)), max_size=25))
@settings(max_examples=40, deadline=None)
def test_computed_columns_are_what_their_names_say(rows: list[tuple[str | None, str | None, int]]) -> None:
    """Against pandas on the texts; encoded or not."""
    table = interactions(*rows)
    items = raw_items(item_id=["a", "b"], title=["A", "B"])
    in_order = table.sort_values("timestamp", kind="stable")
    repeated = table.duplicated()
    again = in_order.duplicated(["user_id", "item_id"]).reindex(table.index)
    first = in_order.drop_duplicates(["user_id", "item_id"])
    history = first.groupby("user_id")["item_id"].transform("size")
    last = ~first.duplicated("user_id", keep="last") & (history >= 3)
    tied = first.duplicated(["user_id", "timestamp"], keep=False)[last]
    for given_table in (table, table.assign(user_id=encode(table["user_id"]), item_id=encode(table["item_id"]))):
        found = expectations.with_computed_columns(given_table, items["item_id"])
        assert found["item_is_known"].tolist() == (table["item_id"].isin(["a", "b"]) | table["item_id"].isna()).tolist()
        assert found["is_repeated"].tolist() == repeated.tolist()
        assert found["is_repeated_pair"].tolist() == (again & ~repeated).tolist()
        assert found["last_is_tied"].dropna().to_dict() == tied.to_dict()


def test_encoded_tables_are_judged_as_texts_are(tmp_path: Path) -> None:
    table = taken(*[(user, item, 1) for user in "uvw" for item in "abc"], ("u", "a", 1), ("x", "ghost", -2 * SECONDS))
    table.loc[3, "user_id"] = None
    raw = RawTables(table, good().items, TIMESTAMP)
    encoded = table.assign(user_id=encode(table["user_id"]), item_id=encode(table["item_id"]))
    result = check(RawTables(encoded, good().items, TIMESTAMP), tmp_path)
    assert result == check(raw)
    assert len(failed(result)) == 6
    assert len(list((tmp_path / "validations").rglob("*.html"))) == 3  # types have a page of their own


@pytest.mark.parametrize("name", ["row", "is_tail", "has_text", "n_interactions", "item_is_known", "found"])
def test_further_columns_of_any_name_change_nothing(name: str) -> None:
    plain, more = good(), good()
    for raw in (plain, more):
        raw.interactions.loc[1, "item_id"] = "ghost"
        raw.items.loc[1, "title"] = None
    for table in (more.interactions, more.items):
        table[name] = pd.Series([["x"]] * len(table), dtype=object)
    assert check(more) == check(plain)


@pytest.mark.parametrize("title", ["y" * 10_000, "\U0001f43b" * 10_000, "a\nb\t" * 3_000])
def test_long_titles_do_not_flood_the_message(title: str) -> None:
    raw = good()
    raw.items["title"] = title
    row = only_failure(check(raw))
    assert len(describe(row)) < 600
    assert "\n" not in describe(row)


def test_times_in_milliseconds_have_a_limit_too() -> None:
    raw = RawTables(good().interactions, good().items, TIMESTAMP, "milliseconds")
    raw.interactions["timestamp"] = 1_700_000_000_000
    assert failed(check(raw)) == {}
    raw.interactions["timestamp"] *= 1000
    assert "timestamp is in milliseconds, of the years 1973 to 2099" in failed(check(raw))


def test_duplicated_item_is_an_error() -> None:
    raw = good()
    raw.items.loc[2] = ["a", "Apple again"]
    row = only_failure(check(raw))
    assert (row["name"], row["severity"]) == ("every item_id occurs once", "error")
    assert [example["row"] for example in row["sample"]] == [1, 3]


def test_missing_identifiers() -> None:
    raw = good()
    raw.interactions.loc[0, "user_id"] = None
    row = only_failure(check(raw))
    assert row["name"] == "user_id is never missing"
    assert row["sample"][0]["user_id"] is None


@pytest.mark.parametrize("title", [None, "", "  \t", "\u200b\ufeff", "\xad", "\u3164\U000e0041"])
def test_share_of_items_with_text(title: str | None) -> None:
    raw = good()
    raw.items.loc[0, "title"] = title
    row = only_failure(check(raw))
    assert (row["name"], row["severity"]) == ("at least 90 % of items have a title", "error")
    assert failed(check(raw, min_text_share=0.5)) == {}


def test_limits_of_size_rating_length_and_tail() -> None:
    raw = good()
    raw.interactions["rating"] = [1.0, 5.5, -1.0]
    result = check(raw, min_users=3, min_items=3, min_interactions=4, max_text_length=4, max_tail_share=0.4)
    assert {name: row["severity"] for name, row in failed(result).items()} == {
        "at least 4 interactions": "error",
        "at least 3 users": "error",
        "rating lies in 0..5": "error",
        "at least 3 items": "error",
        "titles have at most 4 characters": "warning",
        "at most 40 % of items have 1 or fewer interactions": "warning",
    }
    assert failed(result)["rating lies in 0..5"]["unexpected_count"] == 2
    assert failed(result)["at least 3 users"]["sample"] == [{"found": 2}]
    with pytest.raises(DataError, match=r"4 expectation\(s\) failed"):
        raise_on_errors(result)


def test_times() -> None:
    raw = good()
    raw.interactions.loc[0, "timestamp"] = -1
    raw.interactions.loc[1, "timestamp"] = 1_700_000_000_000
    rows = failed(check(raw))
    assert rows["timestamp is not negative"]["severity"] == "error"
    assert rows["timestamp is in seconds, of the years 1973 to 2099"]["severity"] == "warning"


@pytest.mark.parametrize("time", [0, 43_831, 2020, 20_200_131])
def test_counts_that_are_no_seconds_are_told(time: int) -> None:
    """A time that nobody knows, days of a spreadsheet, a year, a date written as a number."""
    raw = good()
    raw.interactions.loc[1, "timestamp"] = time
    row = only_failure(check(raw))
    assert (row["name"], row["severity"]) == ("timestamp is in seconds, of the years 1973 to 2099", "warning")
    assert row["sample"][0]["timestamp"] == time


def test_positions_are_no_times() -> None:
    raw = RawTables(good().interactions, good().items, "position")
    names = [row["name"] for row in check(raw)["expectations"]]
    assert "position is not negative" in names
    assert not any("2099" in name for name in names)


def test_another_type_fails() -> None:
    raw = good()
    table = raw.interactions.astype({"timestamp": "float64"})
    assert "timestamp has type int64" in failed(check(RawTables(table, raw.items, TIMESTAMP)))


def test_a_check_that_cannot_run_counts_as_failed() -> None:
    """Great Expectations reports a crash inside a check as a result, not as an exception."""
    raw = good()
    mixed = raw.interactions.assign(rating=pd.Series(["x", 1, 2], dtype=object))
    row = failed(check(RawTables(mixed, raw.items, TIMESTAMP)))["rating lies in 0..5"]
    assert "could not run" in str(row["sample"])


def test_empty_tables_fail_by_size() -> None:
    raw = RawTables(interactions(), raw_items(item_id=[], title=[]), TIMESTAMP)
    assert {"at least 1 interactions", "at least 1 users", "at least 1 items"} <= set(failed(check(raw)))
