from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from llm_i2i.data.sources import read_raw
from llm_i2i.errors import DataError
from tests.llm_i2i.data.tables import write_raw

HEAD = "user_id,item_id,timestamp\n"


def problems(folder: Path) -> str:
    with pytest.raises(DataError) as caught:
        read_raw(folder)
    return str(caught.value)


def test_csv(tmp_path: Path) -> None:
    folder = write_raw(
        tmp_path,
        interactions="user_id,item_id,rating,timestamp,shop\n007,NA,3.5,12,x\n7,b,4,13.0,\n",
        items='item_id,title,category\nNA,"One, ""two""\nthree",c\nb,,\n',
    )
    raw = read_raw(folder)
    assert raw.order == "timestamp"
    assert raw.interactions["user_id"].tolist() == ["007", "7"]
    assert raw.interactions["item_id"].tolist() == ["NA", "b"]  # not a missing value
    assert raw.interactions["rating"].tolist() == [3.5, 4.0]
    assert raw.interactions["timestamp"].tolist() == [12, 13]
    assert "shop" not in raw.interactions
    assert raw.items["title"].iloc[0] == 'One, "two"\nthree'
    assert raw.items["title"].isna().tolist() == [False, True]
    dtypes = {name: str(dtype) for name, dtype in raw.interactions.dtypes.items()}
    assert dtypes["user_id"] == "str"
    assert dtypes["timestamp"] == "int64"


def test_byte_order_mark_and_windows_line_ends(tmp_path: Path) -> None:
    folder = write_raw(tmp_path)
    (folder / "items.csv").write_bytes("\ufeffitem_id,title\r\na,Äpfel\r\n".encode())
    assert read_raw(folder).items.to_dict("list") == {"item_id": ["a"], "title": ["Äpfel"]}


def test_header_only_gives_empty_tables(tmp_path: Path) -> None:
    raw = read_raw(write_raw(tmp_path, interactions=HEAD, items="item_id,title\n"))
    assert len(raw.interactions) == len(raw.items) == 0
    assert str(raw.interactions["timestamp"].dtype) == "int64"
    assert str(raw.items["title"].dtype) == "str"


def test_parquet_with_numbers_and_dates(tmp_path: Path) -> None:
    pd.DataFrame(
        {
            "user_id": [1, 2],
            "item_id": pd.Categorical(["a", "b"]),
            "timestamp": pd.to_datetime(["1970-01-02", "1970-01-01T00:00:01.9"], format="ISO8601"),
        }
    ).to_parquet(tmp_path / "interactions.parquet")
    pd.DataFrame({"item_id": ["a", "b"], "title": [None, 7], "year": [1995.0, np.nan]}).astype(
        {"title": "Int64"}
    ).to_parquet(tmp_path / "items.parquet")
    raw = read_raw(tmp_path)
    assert raw.interactions.to_dict("list") == {
        "user_id": ["1", "2"],
        "item_id": ["a", "b"],
        "timestamp": [86_400_000, 1_900],
    }
    assert raw.unit == "milliseconds"
    assert raw.items["title"].iloc[1] == "7"
    assert raw.items["year"].tolist()[0] == "1995"
    assert raw.items[["title", "year"]].isna().to_numpy().tolist() == [[True, False], [False, True]]


def test_position_in_place_of_timestamp(tmp_path: Path) -> None:
    raw = read_raw(write_raw(tmp_path, interactions="user_id,item_id,position\nu,a,0\nu,b,1\n"))
    assert raw.order == "position"
    assert raw.interactions["timestamp"].tolist() == [0, 1]


def test_iso_dates_in_csv(tmp_path: Path) -> None:
    rows = "u,a,1970-01-01\nu,b,1970-01-01T01:00:00+01:00\nu,c,1970-01-01 00:01:00Z\nu,d,99\n"
    raw = read_raw(write_raw(tmp_path, interactions=HEAD + rows))
    assert raw.interactions["timestamp"].tolist() == [0, 0, 60, 99]


def test_large_integers_stay_exact(tmp_path: Path) -> None:
    raw = read_raw(write_raw(tmp_path, interactions=HEAD + "u,a,9007199254740993\n"))
    assert raw.interactions["timestamp"].tolist() == [9007199254740993]


@pytest.mark.parametrize("value", ["", "nan", "inf", "1.5", "yesterday", "1e400", "2020-13-01"])
def test_a_bad_time_names_its_row(tmp_path: Path, value: str) -> None:
    folder = write_raw(tmp_path, interactions=f"{HEAD}u,a,1\nu,b,{value}\n")
    message = problems(folder)
    assert "interactions.csv: column 'timestamp': 1 row(s)" in message
    assert "row 2:" in message


@pytest.mark.parametrize("value", ["", "nan", "-inf", "good"])
def test_a_bad_rating_names_its_row(tmp_path: Path, value: str) -> None:
    folder = write_raw(tmp_path, interactions=f"user_id,item_id,timestamp,rating\nu,a,1,{value}\n")
    assert "column 'rating': 1 row(s) hold something other than a finite number" in problems(folder)


def test_all_problems_at_once(tmp_path: Path) -> None:
    folder = write_raw(tmp_path, interactions="user,item_id,rating\nu,a,inf\n", items="item_id;title\na;b\n")
    message = problems(folder)
    assert "4 problem(s)" in message
    assert "columns ['user_id'] are missing, found ['user', 'item_id', 'rating']" in message
    assert "neither 'timestamp' nor 'position'" in message
    assert "column 'rating'" in message
    assert "is it comma separated?" in message


@pytest.mark.parametrize("offset", [0, 1 << 20, (1 << 20) + 1])
def test_another_encoding_names_byte_and_line(tmp_path: Path, offset: int) -> None:
    """Also where a chunk of the reader ends inside a character."""
    folder = write_raw(tmp_path)
    begin = b"item_id,title\n"
    filler = b"".join(b"%07d,\xc3\xa9\xc3\xa9\n" % i for i in range(offset // 13))
    (folder / "items.csv").write_bytes(begin + filler + "a,caf\xe9\n".encode("latin-1"))
    at = len(begin) + len(filler) + 5
    line = 2 + offset // 13
    assert f"items.csv: byte 0xe9 at offset {at:,} (line {line:,}) is not UTF-8" in problems(folder)


def test_a_character_cut_off_at_the_end_of_the_file(tmp_path: Path) -> None:
    folder = write_raw(tmp_path)
    (folder / "items.csv").write_bytes(b"item_id,title\na,caf\xc3")
    assert "byte 0xc3 at offset 19 (line 2)" in problems(folder)


def test_malformed_rows_name_their_lines(tmp_path: Path) -> None:
    folder = write_raw(tmp_path, items='item_id,title\na,"one\ntwo"\nb\nc,d,e\n')
    message = problems(folder)
    assert "items.csv: 2 malformed row(s)" in message
    assert "line 4: 1 cells, expected 2; line 5: 3 cells, expected 2" in message


@pytest.mark.parametrize("rows", ['a,"open\nb,two\n', 'a,"open\nb,closed" here\n'])
def test_an_open_quotation_names_where_it_begins(tmp_path: Path, rows: str) -> None:
    folder = write_raw(tmp_path, items="item_id,title\nx,fine\n" + rows)
    assert "line 3: broken quotation" in problems(folder)


def test_quotes_inside_a_cell_are_text(tmp_path: Path) -> None:
    folder = write_raw(tmp_path, items='item_id,title\na,ruler 6" long\n')
    assert read_raw(folder).items["title"].tolist() == ['ruler 6" long']


def test_empty_file_missing_file_two_files(tmp_path: Path) -> None:
    folder = write_raw(tmp_path)
    (folder / "items.csv").write_bytes(b"")
    (folder / "interactions.parquet").write_bytes(b"")
    message = problems(folder)
    assert "items.csv: the file is empty" in message
    assert "interactions.csv / interactions.parquet: both files are there; expected exactly one" in message
    (folder / "items.csv").unlink()
    assert "items.csv / items.parquet: no such file" in problems(folder)


def test_a_column_twice_and_a_broken_parquet(tmp_path: Path) -> None:
    folder = write_raw(tmp_path, interactions="user_id,item_id,timestamp,item_id\nu,a,1,b\n")
    (folder / "items.csv").unlink()
    (folder / "items.parquet").write_bytes(b"PAR1 not")
    message = problems(folder)
    assert "columns ['item_id'] occur twice" in message
    assert "items.parquet: no readable Parquet file" in message


def test_identifiers_that_are_no_identifiers(tmp_path: Path) -> None:
    folder = write_raw(tmp_path)
    (folder / "items.csv").unlink()
    pd.DataFrame({"item_id": [1.0, 1.5, np.inf], "title": ["a", "b", "c"]}).to_parquet(
        folder / "items.parquet"
    )
    message = problems(folder)
    assert "column 'item_id': 2 row(s)" in message
    assert "row 2: 1.5" in message
