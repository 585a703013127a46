import bz2
import csv
import datetime as dt
import gzip
import io
import lzma
import os
import re
import subprocess
import sys
import zipfile
from contextlib import suppress
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llm_i2i.data.sources import read_raw
from llm_i2i.errors import DataError
from llm_i2i.schema import decode
from tests.llm_i2i.data.tables import write_raw

HEAD = "user_id,item_id,timestamp\n"
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "40"))


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
    pd.DataFrame({"item_id": [1.0, 1.5, np.inf], "title": ["a", "b", "c"]}).to_parquet(folder / "items.parquet")
    message = problems(folder)
    assert "column 'item_id': 2 row(s)" in message
    assert "row 2: 1.5" in message


def write_parquet(folder: Path, name: str, **columns: pa.Array | list[object]) -> None:
    (folder / f"{name}.csv").unlink(missing_ok=True)
    pq.write_table(pa.table(columns), folder / f"{name}.parquet")


def times_of(folder: Path, cells: pa.Array | list[object]) -> tuple[list[int], str]:
    """Timestamps and unit of a Parquet table with these times."""
    n = len(cells)
    write_parquet(folder, "interactions", user_id=["u"] * n, item_id=["a"] * n, timestamp=cells)
    raw = read_raw(folder)
    return raw.interactions["timestamp"].tolist(), raw.unit


# Columns nobody asked for.


@pytest.mark.parametrize(
    "further", ["position", "title", "row", "is_repeated", "index", "", "n_interactions", "__index_level_0__", "unit"]
)
@pytest.mark.parametrize("cells", [("", "x"), ("1.5", "nan"), ('"a\nb"', "[1]")])
def test_further_columns_of_csv_change_nothing(tmp_path: Path, further: str, cells: tuple[str, str]) -> None:
    plain = read_raw(write_raw(tmp_path, interactions=HEAD + "u,a,1\nu,b,2\n"))
    both = f"{further},{further}"  # twice
    rows = f"u,a,1,{cells[0]},\nu,b,2,{cells[1]},\n"
    more = read_raw(write_raw(tmp_path, interactions=f"user_id,item_id,timestamp,{both}\n{rows}"))
    pd.testing.assert_frame_equal(more.interactions, plain.interactions)
    assert more.order == "timestamp"


@pytest.mark.parametrize(
    "column",
    [
        pa.array([["x"], None]),
        pa.array([{"a": 1}, None]),
        pa.array([Decimal("1.5"), None]),
        pa.array([b"\xff", b""]),
        pa.nulls(2),
        pa.array([dt.timedelta(1), None]),
        pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int64())),
        pa.array([2**64 - 1, 0], pa.uint64()),
    ],
)
@pytest.mark.parametrize("table", ["interactions", "items"])
def test_further_columns_of_parquet_change_nothing(tmp_path: Path, table: str, column: pa.Array) -> None:
    folder = write_raw(tmp_path)
    plain = {
        "interactions": {"user_id": ["u", "v"], "item_id": ["a", "b"], "timestamp": [1, 2]},
        "items": {"item_id": ["a", "b"], "title": ["A", "B"]},
    }
    foreign = {"interactions": ["category", "title", "year", "row"], "items": ["user_id", "timestamp", "rating"]}
    for name, columns in plain.items():
        further = dict.fromkeys([*foreign[name], "x"], column) if name == table else {}
        write_parquet(folder, name, **further, **columns)
    raw = read_raw(folder)
    assert raw.interactions.to_dict("list") == plain["interactions"]
    assert raw.items.to_dict("list") == plain["items"]


def test_a_known_column_may_be_the_index_of_pandas(tmp_path: Path) -> None:
    folder = write_raw(tmp_path)
    (folder / "items.csv").unlink()
    pd.DataFrame({"item_id": ["b", "a"], "title": ["B", "A"]}).set_index("item_id").to_parquet(folder / "items.parquet")
    assert read_raw(folder).items.set_index("item_id")["title"].to_dict() == {"a": "A", "b": "B"}


# Times.


@pytest.mark.parametrize(
    ("cells", "times", "unit"),
    [
        (["2017-07-14T02:40:00.050Z", "2017-07-14"], [1500000000050, 1499990400000], "milliseconds"),
        (["1970-01-01T00:00:00.000001", "1"], [1, 1_000_000], "microseconds"),
        (["1970-01-01T00:00:00.000000001Z"], [1], "nanoseconds"),
        (["1500000000000", "1500000000050"], [1500000000000, 1500000000050], "milliseconds"),
        (["1500000000000001"], [1500000000000001], "microseconds"),
        (["1500000000000000001"], [1500000000000000001], "nanoseconds"),
        (["1500000000000000001.0", "1.5e18"], [1500000000000000001, 1500000000000000000], "nanoseconds"),
        (["2017-07-14T02:40:00+02:00", " 7 "], [1499992800, 7], "seconds"),
        (["0", "1500000000000"], [0, 1500000000000], "milliseconds"),  # 0 fits every unit
    ],
)
def test_times_of_csv_keep_their_fractions(tmp_path: Path, cells: list[str], times: list[int], unit: str) -> None:
    rows = "".join(f"u,a,{cell}\n" for cell in cells)
    raw = read_raw(write_raw(tmp_path, interactions=HEAD + rows))
    assert (raw.interactions["timestamp"].tolist(), raw.unit) == (times, unit)


@pytest.mark.parametrize(
    ("cells", "times", "unit"),
    [
        (pa.array([1500000000050], pa.timestamp("ms")), [1500000000050], "milliseconds"),
        (pa.array([1500000000050001], pa.timestamp("us", "Europe/Berlin")), [1500000000050001], "microseconds"),
        (pa.array([1500000000050000001], pa.timestamp("ns")), [1500000000050000001], "nanoseconds"),
        (pa.array([1500000000000000000], pa.timestamp("ns")), [1500000000], "seconds"),
        (pa.array([dt.date(1970, 1, 2)]), [86400], "seconds"),
        (pa.array([Decimal("1500000000.00")]), [1500000000], "seconds"),
        (pa.array([1500000000.0, 3.0]), [1500000000, 3], "seconds"),
        (pa.array(["2017-07-14T02:40:00.5Z"]).dictionary_encode(), [1500000000500], "milliseconds"),
    ],
)
def test_times_of_parquet_keep_their_fractions(tmp_path: Path, cells: pa.Array, times: list[int], unit: str) -> None:
    assert times_of(write_raw(tmp_path), cells) == (times, unit)


@pytest.mark.parametrize(
    "cells",
    [
        pa.array([Decimal("1.75")]),
        pa.array([1.75]),
        pa.array([True]),
        pa.array([2**63], pa.uint64()),
        pa.array([None], pa.timestamp("ms")),
        pa.array([None], pa.int64()),
        pa.array([[1]]),
        pa.array([b"1"]),
        pa.array([dt.time(1)]),
        pa.nulls(1),
    ],
)
def test_what_is_no_whole_time_is_refused(tmp_path: Path, cells: pa.Array) -> None:
    with pytest.raises(DataError, match=r"column 'timestamp': 1 row\(s\) hold something other than"):
        times_of(write_raw(tmp_path), cells)


@pytest.mark.parametrize(
    "value",
    ["now", "today", "NaT", "1.75", "2017-07-14T02:40:00.1234567891", "1e999999999", "9" * 20, "1_000", "٣", "0x10"],
)
def test_words_and_decimals_are_no_times(tmp_path: Path, value: str) -> None:
    assert "column 'timestamp': 1 row(s)" in problems(write_raw(tmp_path, interactions=f"{HEAD}u,a,{value}\n"))


@pytest.mark.parametrize(
    ("cells", "told"),
    [
        (["1500000000", "1500000000000", "1500000001"], "2 row(s) in seconds and 1 row(s) in milliseconds"),
        (["1500000000000", "1500000000000000"], "1 row(s) in milliseconds and 1 row(s) in microseconds"),
        (["1500000000", "1500000000000000000"], "1 row(s) in seconds and 1 row(s) in nanoseconds"),
        (["2017-07-14", "1500000000", "1500000000000"], "1 row(s) in seconds and 1 row(s) in milliseconds"),
    ],
)
def test_times_in_several_units_are_refused_with_counts(tmp_path: Path, cells: list[str], told: str) -> None:
    rows = "".join(f"u,a,{cell}\n" for cell in cells)
    assert f"column 'timestamp': {told}" in problems(write_raw(tmp_path, interactions=HEAD + rows))
    if not any("-" in cell for cell in cells):
        with pytest.raises(DataError, match=re.escape(told)):
            times_of(tmp_path, pa.array([int(cell) for cell in cells]))


# Text.


@pytest.mark.parametrize(
    ("cells", "texts"),
    [
        (pa.array([["Toys", "Dolls"], ["A"]]), ["Toys, Dolls", "A"]),
        (pa.array([["Toys", None, "", "x"], []]), ["Toys, x", None]),
        (pa.array([[1, 2], None]), ["1, 2", None]),
        (pa.array([Decimal("7.0000"), None]), ["7", None]),
        (pa.array([7.0, None]), ["7", None]),
        (pa.array([2**60 + 1, None]), ["1152921504606846977", None]),
        (pa.array(["x", None]).dictionary_encode(), ["x", None]),
        (pa.array(["x", ""], pa.large_string()), ["x", ""]),
        (pa.nulls(2), [None, None]),
    ],
)
@pytest.mark.parametrize("column", ["title", "category", "brand"])
def test_texts_of_parquet(tmp_path: Path, column: str, cells: pa.Array, texts: list[object]) -> None:
    folder = write_raw(tmp_path)
    write_parquet(folder, "items", **{"item_id": ["a", "b"], "title": ["A", "B"]} | {column: cells})
    found = read_raw(folder).items[column]
    assert found.astype(object).where(found.notna(), None).tolist() == texts
    assert str(found.dtype) == "str"


@pytest.mark.parametrize(
    "cell",
    [
        {"a": 1},
        [["x"]],
        [["x", "y"], ["z"]],
        [{"a": 1}],
        Decimal("1.5"),
        1.5,
        1e300,
        True,
        b"x",
        dt.date(1995, 1, 1),
        dt.timedelta(1),
    ],
)
@pytest.mark.parametrize("column", ["item_id", "title", "category", "year"])
def test_what_is_no_text_is_refused(tmp_path: Path, column: str, cell: object) -> None:
    folder = write_raw(tmp_path)
    write_parquet(folder, "items", **{"item_id": ["a"], "title": ["A"]} | {column: pa.array([cell])})
    assert f"column '{column}': 1 row(s) hold something other than text or an integer" in problems(folder)


def test_lists_are_no_identifiers(tmp_path: Path) -> None:
    write_parquet(write_raw(tmp_path), "items", item_id=[["a"]], title=["A"])
    assert "column 'item_id': 1 row(s)" in problems(tmp_path)


@pytest.mark.parametrize(
    ("years", "right"),
    [("1995.0,", ["1995", None]), ("1995.00,-5.0", ["1995", "-5"]), ("unknown,1995.5", ["unknown", "1995.5"])],
)
def test_a_year_that_pandas_wrote_as_a_float(tmp_path: Path, years: str, right: list[object]) -> None:
    first, second = years.split(",")
    items = f"item_id,title,year\na,A 1.0,{first}\nb,B,{second}\n"
    found = read_raw(write_raw(tmp_path, items=items)).items
    assert found["year"].astype(object).where(found["year"].notna(), None).tolist() == right
    assert found["title"].iloc[0] == "A 1.0"


def test_long_cells_are_cut_in_messages(tmp_path: Path) -> None:
    wide = ",".join(f"column{n}" for n in range(5_000))
    folder = write_raw(tmp_path, interactions=f"{HEAD}u,a,{'y' * 10_000}\n", items=f"{wide}\n")
    assert len(problems(folder)) < 1_500


# Files.


@pytest.mark.parametrize("ending", [".gz", ".zst"])
@pytest.mark.parametrize("name", ["interactions", "items"])
def test_compressed_csv(tmp_path: Path, name: str, ending: str) -> None:
    right = read_raw(write_raw(tmp_path, items='item_id,title\na,"Ä\n1"\nb,B\n'))
    path = tmp_path / f"{name}.csv"
    with pa.output_stream(str(path) + ending) as file:  # compressed by the name
        file.write(path.read_bytes())
    assert "both files are there" in problems(tmp_path)
    path.unlink()
    raw = read_raw(tmp_path)
    pd.testing.assert_frame_equal(raw.interactions, right.interactions)
    pd.testing.assert_frame_equal(raw.items, right.items)


@pytest.mark.parametrize("ending", [".csv.gz", ".csv.zst", ".parquet"])
def test_a_file_damaged_at_any_byte_is_read_or_refused(tmp_path: Path, ending: str) -> None:
    folder = write_raw(tmp_path)
    path = folder / f"items{ending}"
    if ending == ".parquet":
        pq.write_table(pa.table({"item_id": ["a", "b"], "title": ["A", "B"]}), path)
    else:
        with pa.output_stream(str(path)) as file:
            file.write((folder / "items.csv").read_bytes())
    (folder / "items.csv").unlink()
    whole = path.read_bytes()
    for place in range(0, len(whole), 11 if ending == ".parquet" else 1):
        damaged = bytearray(whole)
        damaged[place] ^= 0xFF
        for content in (damaged, whole[:place]):
            path.write_bytes(content)
            with suppress(DataError):
                read_raw(folder)


def test_a_folder_of_parquet_parts(tmp_path: Path) -> None:
    folder = write_raw(tmp_path)
    (folder / "interactions.csv").unlink()
    parts = folder / "interactions.parquet"
    for day, users in (("item_id=007", ["u", "v"]), ("item_id=b%2Fc", ["u"])):
        (parts / day).mkdir(parents=True)
        table = pa.table({"timestamp": pa.array(range(len(users)), pa.int32()), "user_id": users})
        pq.write_table(table, parts / day / "part-0.snappy.parquet")
    pq.write_table(pa.table({"user_id": ["w"], "timestamp": [5], "item_id": ["d"]}), parts / "part-1.parquet")
    (parts / "_SUCCESS").touch()
    (parts / ".part-1.parquet.crc").write_bytes(b"crc")
    assert read_raw(folder).interactions[["user_id", "item_id", "timestamp"]].to_numpy().tolist() == [
        ["u", "007", 0],
        ["v", "007", 1],
        ["u", "b/c", 0],
        ["w", "d", 5],
    ]


def write_parts(folder: Path, *times: pa.Array, **columns: pa.Array) -> Path:
    """A table of one part for each array of times."""
    (folder / "interactions.csv").unlink()
    path = folder / "interactions.parquet"
    path.mkdir()
    for number, cells in enumerate(times):
        part = {"user_id": ["u"], "item_id": ["a"]} | {name: column[number] for name, column in columns.items()}
        pq.write_table(pa.table({**part, "timestamp": cells}), path / f"part-{number}.parquet")
    return path


MOMENT = dt.datetime(2001, 9, 9, 1, 46, 40)


@pytest.mark.parametrize(
    "kind",
    [pa.timestamp("us"), pa.timestamp("ms", "UTC"), pa.timestamp("ns", "Asia/Tokyo"), pa.timestamp("s", "+05:30")],
)
def test_parts_with_times_of_other_zones_and_units(tmp_path: Path, kind: pa.DataType) -> None:
    folder = write_raw(tmp_path)
    write_parts(
        folder, pa.array([MOMENT], pa.timestamp("ms")), pa.array([MOMENT], pa.timestamp("us", "UTC")).cast(kind)
    )
    assert read_raw(folder).interactions["timestamp"].tolist() == [1_000_000_000] * 2


@pytest.mark.parametrize(
    "users",
    [pa.array(["v"]).dictionary_encode(), pa.array(["v"], pa.large_string()), pa.array(["v"], pa.string_view())],
)
@pytest.mark.parametrize("encoded", [False, True])
def test_parts_with_texts_of_other_types(tmp_path: Path, users: pa.Array, encoded: bool) -> None:
    folder = write_raw(tmp_path)
    write_parts(folder, [1], [2], user_id=[["u"], users])
    assert read_raw(folder, encoded=encoded).interactions["user_id"].tolist() == ["u", "v"]


@pytest.mark.parametrize("cells", [["1"], pa.array([MOMENT]), pa.array([dt.date(2020, 1, 1)])])
def test_parts_that_mean_different_things_are_told_by_their_types(tmp_path: Path, cells: pa.Array) -> None:
    folder = write_raw(tmp_path)
    write_parts(folder, [1], cells)
    kind = pa.array(cells).type
    assert f"column 'timestamp' is int64 and {kind} in several parts" in problems(folder)


def test_a_part_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    folder = write_raw(tmp_path)
    (write_parts(folder, [1], [2]) / "part-1.parquet").write_bytes(b"")
    assert "part-1.parquet: " in problems(folder)


@pytest.mark.parametrize("mark", ["_delta_log/00000000000000000000.json", ".hoodie/hoodie.properties"])
def test_tables_with_old_versions_are_refused(tmp_path: Path, mark: str) -> None:
    folder = write_raw(tmp_path)
    path = write_parts(folder, [1], [2]) / mark
    path.parent.mkdir()
    path.touch()
    assert "with old versions beside the newest" in problems(folder)


def test_a_folder_without_a_value_is_missing(tmp_path: Path) -> None:
    folder = write_raw(tmp_path)
    (folder / "interactions.csv").unlink()
    for name in ("u", "__HIVE_DEFAULT_PARTITION__"):
        path = folder / "interactions.parquet" / f"user_id={name}"
        path.mkdir(parents=True)
        pq.write_table(pa.table({"item_id": ["a"], "timestamp": [1]}), path / "part-0.parquet")
    assert read_raw(folder).interactions["user_id"].isna().tolist() == [True, False]


@pytest.mark.parametrize(
    "cells",
    [
        pa.array(["b", "a", None, "ä", "b"]),
        pa.array(["b", "a", None, "ä", "b"], pa.large_string()),
        pa.array(["b", "a", None, "ä", "b"]).dictionary_encode(),
        pa.array([7, 10, None, -7, 7], pa.int16()),
        pa.array([7, 10, None, 2**60 + 1, 7]),
        pa.array([7, 10, None, 8, 7]).dictionary_encode(),
        pa.array([7.0, 10.0, None, 8.0, 7.0]),
        pa.nulls(5),
    ],
)
def test_encoded_identifiers_are_the_same_texts(tmp_path: Path, cells: pa.Array) -> None:
    folder = write_raw(tmp_path)
    (folder / "interactions.csv").unlink()
    parts = folder / "interactions.parquet"
    parts.mkdir()
    for name, part in (("a", cells[:3]), ("b", cells[3:])):
        table = pa.table({"user_id": part, "item_id": part, "timestamp": range(len(part))})
        pq.write_table(table, parts / f"{name}.parquet")
    plain, encoded = read_raw(folder).interactions, read_raw(folder, encoded=True).interactions
    assert encoded["user_id"].cat.categories.is_monotonic_increasing
    assert str(encoded["user_id"].cat.categories.dtype) == "str"
    pd.testing.assert_frame_equal(encoded.assign(user_id=decode(encoded["user_id"]), item_id=plain["item_id"]), plain)


def test_other_folders_are_told(tmp_path: Path) -> None:
    folder = write_raw(tmp_path)
    (folder / "items.csv").unlink()
    (folder / "items.csv").mkdir()
    assert "items.csv is a folder" in problems(folder)
    (folder / "items.csv").rmdir()
    (folder / "items.parquet").mkdir()
    assert "a folder without Parquet files" in problems(folder)
    (folder / "items.parquet").rmdir()
    (folder / "items.tsv").touch()
    assert "no such file, but items.tsv" in problems(folder)
    (folder / "items.tsv").rename(folder / "ml-100k.item")
    assert "no such file, but ml-100k.item;" in problems(folder)


PLAIN = (HEAD + "u,a,1\n").encode()
ZIP = io.BytesIO()
with zipfile.ZipFile(ZIP, "w") as archive:
    archive.writestr("interactions.csv", PLAIN)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (gzip.compress(PLAIN), "holds gzip; expected comma separated UTF-8: name it interactions.csv.gz"),
        (pa.compress(PLAIN, "zstd", asbytes=True), "name it interactions.csv.zst"),
        (b"PAR1\x15\x04", "name it interactions.parquet"),
        (ZIP.getvalue(), "holds a zip archive or a spreadsheet"),
        (bz2.compress(PLAIN), "holds bzip2"),
        (lzma.compress(PLAIN), "holds xz"),
        (PLAIN.decode().encode("utf-16"), "convert it with `iconv -f UTF-16 -t UTF-8`"),
        (PLAIN.decode().encode("utf-16-be"), "holds zero bytes"),
        (PLAIN.decode().encode("utf-32-le"), "holds zero bytes"),
    ],
    ids=["gzip", "zstd", "parquet", "zip", "bzip2", "xz", "utf-16", "utf-16-be", "utf-32"],
)
@pytest.mark.parametrize("ending", [".csv", ".csv.gz"])
def test_another_form_than_the_name_says(tmp_path: Path, content: bytes, told: str, ending: str) -> None:
    folder = write_raw(tmp_path)
    (folder / "interactions.csv").unlink()
    (folder / f"interactions{ending}").write_bytes(gzip.compress(content) if ending == ".csv.gz" else content)
    assert told in problems(folder)


@pytest.mark.parametrize("blank", ["\n", "\r\n\r\n", "  \n\n", ",,\n", "\ufeff\n"])
@pytest.mark.parametrize("quoted", ["", '"'])
def test_blank_lines_before_the_header(tmp_path: Path, blank: str, quoted: str) -> None:
    folder = write_raw(tmp_path)
    text = f"{blank}user_id,{quoted}item_id{quoted},timestamp\nu,a,1\n\nu,b,2\n"
    (folder / "interactions.csv").write_bytes(text.encode())
    assert read_raw(folder).interactions.to_numpy().tolist() == [["u", "a", 1], ["u", "b", 2]]


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\n\n\n"])
@pytest.mark.parametrize(
    "head", ["user_id,item_id,timestamp", "\ufeffuser_id,item_id,timestamp,x\ny".replace("\n", "")]
)
def test_a_header_alone_is_an_empty_table(tmp_path: Path, head: str, end: str) -> None:
    folder = write_raw(tmp_path)
    (folder / "interactions.csv").write_bytes((head + end).encode())
    assert len(read_raw(folder).interactions) == 0


@pytest.mark.parametrize("size", [140_000, 1 << 20, (1 << 24) + 5])
def test_wide_cells(tmp_path: Path, size: int) -> None:
    items = f'item_id,title,description\na,"A ""1""",{"x" * size}\nb,B,\n'
    assert read_raw(write_raw(tmp_path, items=items)).items["title"].tolist() == ['A "1"', "B"]
    assert csv.field_size_limit() == 131_072  # as it was


@pytest.mark.parametrize(
    ("separator", "names"),
    [
        ("\t", HEAD),
        (";", HEAD),
        ("|", HEAD),
        ("\t", "user_id:token,item_id:token,timestamp:float\n"),
        (",", "user_id:token,item_id:token,timestamp:float\n"),
        (",", "user_id, item_id, timestamp\n"),
        (",", 'user_id, "item_id" ,timestamp\n'),
    ],
)
def test_another_separator_comes_with_the_command_that_helps(tmp_path: Path, separator: str, names: str) -> None:
    folder = write_raw(tmp_path, interactions=f"{names}u,007,1\n".replace(",", separator))
    command = problems(folder).partition("plain names: ")[2].partition('")')[0] + '"'
    subprocess.run(command.replace("python", sys.executable, 1), shell=True, check=True)
    assert read_raw(folder).interactions.to_numpy().tolist() == [["u", "007", 1]]


def test_the_command_keeps_quotes_of_atomic_files(tmp_path: Path) -> None:
    """RecBole quotes nothing: a title may begin with a quote, and need not end with one."""
    items = 'item_id:token\ttitle:token_seq\na\t"Great Performances" Cats\nb\t"Open\nc\tC\n'
    folder = write_raw(tmp_path, items=items)
    command = problems(folder).partition("plain names: ")[2].partition('")')[0] + '"'
    subprocess.run(command.replace("python", sys.executable, 1), shell=True, check=True)
    assert read_raw(folder).items["title"].tolist() == ['"Great Performances" Cats', '"Open', "C"]


@pytest.mark.parametrize("kind", ["float32", "float16"])
@pytest.mark.parametrize("column", ["user_id", "timestamp"])
def test_floats_that_skip_integers_are_refused(tmp_path: Path, kind: str, column: str) -> None:
    folder = write_raw(tmp_path)
    fits = 2.0 ** (np.finfo(kind).nmant + 1)
    table = {"user_id": ["u"] * 3, "item_id": ["a"] * 3, "timestamp": [1] * 3}
    write_parquet(folder, "interactions", **table | {column: np.array([7, fits, fits + 4], kind)})
    message = problems(folder)
    assert f"column '{column}': 1 row(s)" in message
    assert f"({kind} skips integers of this size: write it as int64) (row 3: {fits + 4}" in message


@pytest.mark.parametrize(
    ("cells", "rating"),
    [
        (pa.array([Decimal("3.5")]), 3.5),
        (pa.array([Decimal("4.00")], pa.decimal256(40, 2)), 4.0),
        (pa.array(["3"]).dictionary_encode(), 3.0),
        (pa.array([2.5], pa.float32()), 2.5),
    ],
)
def test_ratings_of_parquet(tmp_path: Path, cells: pa.Array, rating: float) -> None:
    write_parquet(write_raw(tmp_path), "interactions", user_id=["u"], item_id=["a"], timestamp=[1], rating=cells)
    assert read_raw(tmp_path).interactions["rating"].tolist() == [rating]


@pytest.mark.parametrize("cell", [MOMENT, dt.timedelta(1), dt.date(2020, 1, 1), b"3", [3], None])
def test_what_is_no_rating_is_refused(tmp_path: Path, cell: object) -> None:
    write_parquet(write_raw(tmp_path), "interactions", user_id=["u"], item_id=["a"], timestamp=[1], rating=[cell])
    assert "column 'rating': 1 row(s) hold something other than a finite number" in problems(tmp_path)


CELLS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.decimals(-1000, 1000, places=2),
    st.text(st.characters(codec="utf-8"), max_size=4),
    st.binary(max_size=3),
    st.dates(),
    st.datetimes(),
    st.lists(st.text(st.characters(codec="utf-8"), max_size=2), max_size=2),
    st.lists(st.lists(st.text(st.characters(codec="utf-8"), max_size=2), max_size=2), max_size=2),
    st.dictionaries(st.sampled_from("ab"), st.integers(0, 9), min_size=1, max_size=2),
)
NAMES = st.sampled_from(
    ["position", "rating_", "title", "row", "index", "is_tail", "", "x", "user_id ", "__index_level_0__"]
)


@settings(deadline=None, max_examples=EXAMPLES, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_further_column_in_any_order_changes_nothing(tmp_path: Path, data: st.DataObject) -> None:
    right = {"user_id": ["u", "v"], "item_id": ["007", "b"], "timestamp": [1500000000, 1500000001]}
    further = {}
    for name in data.draw(st.lists(NAMES, unique=True, max_size=4)):
        cells = [data.draw(CELLS), data.draw(CELLS)]
        try:
            further[name] = pa.array(cells)
            further[name].to_pylist()  # not so for a date after the year 9999
        except (pa.ArrowException, OverflowError):
            further[name] = pa.array([str(cell) for cell in cells])
    columns = right | further
    order = data.draw(st.permutations(list(columns)))
    folder = write_raw(tmp_path)
    write_parquet(folder, "interactions", **{name: columns[name] for name in order})
    assert read_raw(folder).interactions[list(right)].to_dict("list") == right
    (folder / "interactions.parquet").unlink()
    with (folder / "interactions.csv").open("w", encoding="utf-8", newline="") as file:
        cells = {name: values if name in right else values.to_pylist() for name, values in columns.items()}
        rows = [order, *([str(cells[name][row]) for name in order] for row in (0, 1))]
        # Python's writer leaves a lone carriage return unquoted, and as such it ends a line.
        quoting = csv.QUOTE_ALL if any("\r" in cell for row in rows for cell in row) else csv.QUOTE_MINIMAL
        writer = csv.writer(file, lineterminator=data.draw(st.sampled_from(["\n", "\r\n"])), quoting=quoting)
        writer.writerows(rows)
    assert read_raw(folder).interactions[list(right)].to_dict("list") == right


@settings(deadline=None, max_examples=EXAMPLES, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_value_of_a_known_column_is_read_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    table, name = data.draw(st.sampled_from([
        *[("interactions", column) for column in ("user_id", "item_id", "timestamp", "rating", "position")],
        *[("items", column) for column in ("item_id", "title", "category", "year")],
    ]))  # fmt: skip
    try:
        cells = pa.array(data.draw(st.lists(CELLS, min_size=2, max_size=2)))
        given_texts = cells.to_pylist()
    except (pa.ArrowException, OverflowError):
        return
    plain = {
        "interactions": {"user_id": ["u", "v"], "item_id": ["a", "b"], "timestamp": [1, 2]},
        "items": {"item_id": ["a", "b"], "title": ["A", "B"]},
    }
    folder = write_raw(tmp_path)
    write_parquet(folder, table, **plain[table] | {name: cells})
    try:
        raw = read_raw(folder)
    except DataError:
        return
    finally:
        (folder / f"{table}.parquet").unlink()
    texts = raw.items.drop(columns="item_id").to_numpy().ravel().tolist()
    assert not [t for t in texts if t not in given_texts and str(t).startswith(("['", "{'", "b'"))]
