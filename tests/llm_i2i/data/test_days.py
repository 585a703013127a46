"""A day is appended as a part, a user is deleted from all parts, and what does not fit changes nothing."""

from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_i2i.data.days import change_tables
from llm_i2i.data.sources import read_raw
from llm_i2i.errors import DataError
from llm_i2i.files import content_md5
from tests.llm_i2i.data.tables import write_raw

BEFORE = "user_id,item_id,timestamp\n007,a,10\n7,b,11\n7,a,12\n"
ITEMS = "item_id,title\na,Äpfel\nb,\n"
DAY = "user_id,item_id,timestamp\n7,c,20\nnew,a,21\n"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_raw(tmp_path / "data", interactions=BEFORE, items=ITEMS)


def day(tmp_path: Path, interactions: str = DAY, items: str | None = "item_id,title\nc,C\n", name="2026-11-27") -> Path:
    folder = tmp_path / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "interactions.csv").write_text(interactions, encoding="utf-8")
    if items is not None:
        (folder / "items.csv").write_text(items, encoding="utf-8")
    return folder


def rows(folder: Path) -> list[tuple]:
    return sorted(read_raw(folder).interactions.itertuples(index=False, name=None))


def test_csv_becomes_parts_with_the_same_cells(data, tmp_path):
    before = rows(data)
    assert change_tables(data, day=day(tmp_path)) == (2, 1, 0)
    assert sorted(str(path.relative_to(data)) for path in data.rglob("*.parquet") if path.is_file()) == [
        "interactions.parquet/2026-11-27.parquet",
        "interactions.parquet/before.parquet",
        "items.parquet/2026-11-27.parquet",
        "items.parquet/before.parquet",
    ]
    assert rows(data) == sorted([*before, ("7", "c", 20), ("new", "a", 21)])
    items = read_raw(data).items.sort_values("item_id")
    assert items["title"].fillna("?").tolist() == ["Äpfel", "?", "C"]
    first = content_md5(data / "interactions.parquet/before.parquet")
    assert change_tables(data, day=day(tmp_path, "item_id,timestamp,user_id\nc,30,007\n", None, "2026-11-28")) == (
        1,
        0,
        0,
    )
    assert ("007", "c", 30) in rows(data)
    assert content_md5(data / "interactions.parquet/before.parquet") == first


def test_numbers_are_written_as_the_tables_before_have_them(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    pd.DataFrame({"user_id": [1, 2], "item_id": [5, 6], "timestamp": [10, 11]}).to_parquet(
        data / "interactions.parquet"
    )
    pd.DataFrame({"item_id": [5, 6], "title": ["x", "y"]}).to_parquet(data / "items.parquet")
    change_tables(data, day=day(tmp_path, "user_id,item_id,timestamp\n2,5,12\n", None))
    assert rows(data) == [("1", "5", 10), ("2", "5", 12), ("2", "6", 11)]
    assert change_tables(data, remove={"2"}).deleted == 2
    assert rows(data) == [("1", "5", 10)]
    assert not (data / "interactions.parquet/2026-11-27.parquet").exists()


@pytest.mark.parametrize(
    ("interactions", "items", "name", "message"),
    [
        ("user_id,item_id,timestamp,rating\n7,a,20,5\n", None, "d1", r"interactions: has columns .* expected those"),
        ("user_id,item_id\n7,a\n", None, "d1", "neither 'timestamp' nor 'position'"),
        ("user_id,item_id,timestamp\n7,z,20\n", None, "d1", r"1 items are neither .* \(first: 'z'\)"),
        (DAY, "item_id,title\na,Other\nc,C\n", "d1", r"items: 1 items are in .* already \(first: 'a'\)"),
        ("user_id,item_id,timestamp\n7,,20\n", None, "d1", "1 identifiers are missing"),
        ("user_id,item_id,timestamp\n7,a,soon\n", None, "d1", "something other than a finite integer"),
        ("user_id,item_id,timestamp\n7,a,1700000000000\n8,a,1600000000\n", None, "d1", "in milliseconds"),
        (DAY, "item_id,title\nc,C\n", "a day", "is no name of a day"),
        (DAY, "item_id,title\nc,C\n", "2026-11-26", "day 2026-11-26 is there already"),
    ],
)  # fmt: skip
def test_a_day_that_does_not_fit_changes_nothing(data, tmp_path, interactions, items, name, message):
    change_tables(data, day=day(tmp_path, "user_id,item_id,timestamp\n9,a,13\n", None, "2026-11-26"))
    before = content_md5(data)
    with pytest.raises(DataError, match=message):
        change_tables(data, day=day(tmp_path, interactions, items, name))
    assert content_md5(data) == before
    assert [path.name for path in data.parent.glob("*.partial")] == []


def test_a_type_that_cannot_be_cast_is_an_error(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    pd.DataFrame({"user_id": [1], "item_id": [5], "timestamp": [10]}).to_parquet(data / "interactions.parquet")
    pd.DataFrame({"item_id": [5], "title": ["x"]}).to_parquet(data / "items.parquet")
    with pytest.raises(DataError, match="user_id int64"):
        change_tables(data, day=day(tmp_path, "user_id,item_id,timestamp\nanna,5,12\n", None))


def test_unknown_users_and_the_last_user_stay(data):
    before = content_md5(data)
    with pytest.raises(DataError, match=r"1 user\(s\) have no interaction \(first: '07'\)"):
        change_tables(data, remove={"7", "07"})
    with pytest.raises(DataError, match="nobody else has an interaction"):
        change_tables(data, remove={"7", "007"})
    assert content_md5(data) == before
    assert change_tables(data, remove={"007"}).deleted == 1
    assert rows(data) == [("7", "a", 12), ("7", "b", 11)]
    assert b"007" not in b"".join(path.read_bytes() for path in data.rglob("*.parquet") if path.is_file())


ROWS = st.lists(st.tuples(st.sampled_from("uvwx"), st.sampled_from("ab"), st.integers(0, 99)), min_size=1, max_size=6)


@settings(max_examples=4, deadline=None)
@given(days=st.lists(ROWS, min_size=1, max_size=3), gone=st.sampled_from("uvwx"))
def test_days_are_the_rows_of_one_table(days, gone, tmp_path_factory):
    folder = tmp_path_factory.mktemp("days")

    def text(part) -> str:
        return "user_id,item_id,timestamp\n" + "".join(f"{user},{item},{time}\n" for user, item, time in part)

    data = write_raw(folder / "data", interactions=text([("z", "a", 1), *days[0]]), items=ITEMS)
    for number, part in enumerate(days[1:]):
        change_tables(data, day=day(folder, text(part), None, f"2026-11-0{number}"))
    expected = sorted([("z", "a", 1), *(row for part in days for row in part)])
    assert rows(data) == expected
    if any(row[0] == gone for row in expected):
        change_tables(data, remove={gone})
        assert rows(data) == [row for row in expected if row[0] != gone]
