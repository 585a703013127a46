"""Tables made up of anything go through reading, split and tags, or are refused with an error of ours.

FUZZ_EXAMPLES=1000 makes a thousand of them (`make fuzz`).
"""

import csv
import gzip
import io
import os
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llm_i2i.data.expectations import raise_on_errors, validate_tables
from llm_i2i.data.long_tail import tag_items
from llm_i2i.data.sources import RawTables, read_raw
from llm_i2i.data.split import split_interactions
from llm_i2i.errors import LlmI2iError
from llm_i2i.params import load_params
from tests.conftest import ROOT
from tests.llm_i2i.data.test_sources import CELLS

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "12"))
KNOWN = {
    "interactions": ("user_id", "item_id", "timestamp", "rating", "position"),
    "items": ("item_id", "title", "category", "brand", "year"),
}
ODD_NAMES = st.one_of(
    st.sampled_from([
        "", "index", "row", "source", "weight", "bucket", "n_train", "text", "level_0", "__index_level_0__", "user_id",
        "ITEM_ID", "user_id:token", " item_id", "title\n", "\ufeffuser_id", "nan", "None", "0", "n" * 300,
    ]),
    st.text(st.characters(codec="utf-8"), max_size=5),
)  # fmt: skip
# Few, so that users share items.
COMMON = ("a", "b", "007", "7", "Ä")
IDS = st.one_of(st.sampled_from(COMMON), st.text(st.characters(codec="utf-8"), min_size=1, max_size=3))
TIMES = st.one_of(
    st.integers(1_000_000_000, 1_700_000_000),
    st.sampled_from(["2020-01-01", "2020-01-01T00:00:00.5Z", "1e9", "now", "", "1500000000000", "1.5", "-1"]),
)
ODD = {
    "user_id": IDS,
    "item_id": IDS,
    "timestamp": TIMES,
    "rating": st.sampled_from([1, 2.5, "3", "", "good"]),
    "position": st.integers(-1, 9),
}
PLAIN = {
    "user_id": st.sampled_from(COMMON),
    "item_id": st.sampled_from(COMMON),
    "timestamp": st.integers(1_000_000_000, 1_700_000_000),
    "rating": st.sampled_from([1, 2.5, 5]),
    "position": st.integers(0, 9),
}
TEXTS = st.text(st.characters(codec="utf-8"), max_size=8)


def seldom(draw: st.DrawFn) -> bool:
    return draw(st.integers(0, 19)) == 0


@st.composite
def columns(draw: st.DrawFn, table: str) -> list[tuple[str, list[Any]]]:
    """Names and cells: those that the table needs, mostly; each of the kind it should hold, mostly; any others."""
    whole = not seldom(draw)
    rows = (len(COMMON) if table == "items" else 25) if whole else draw(st.integers(0, 12))
    needed = 3 if table == "interactions" else 2
    names = [name for place, name in enumerate(KNOWN[table]) if seldom(draw) != (place < needed)]
    names += draw(st.lists(ODD_NAMES, max_size=2))
    found = []
    for name in draw(st.permutations(names)):
        usual = ODD.get(name, TEXTS) if seldom(draw) else PLAIN.get(name, TEXTS)
        cells = CELLS if seldom(draw) else usual
        if name == "item_id" and table == "items":
            odd = CELLS if cells is CELLS else IDS
            ids = st.permutations(COMMON) if whole else st.lists(odd, min_size=rows, max_size=rows, unique_by=str)
            found.append((name, list(draw(ids))))
        else:
            found.append((name, draw(st.lists(cells, min_size=rows, max_size=rows))))
    return found


def as_csv(draw: st.DrawFn, table: list[tuple[str, list[Any]]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(
        text,
        delimiter=draw(st.sampled_from([";", "\t", "|"])) if seldom(draw) else ",",
        lineterminator="\r" if seldom(draw) else draw(st.sampled_from(["\n", "\r\n"])),
        quoting=draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])),
    )
    writer.writerows([[name for name, _ in table], *zip(*(cells for _, cells in table), strict=True)])
    others = st.sampled_from(["utf-16", "latin-1", "cp1252", "shift-jis"])
    encoding = draw(others) if seldom(draw) else draw(st.sampled_from(["utf-8", "utf-8-sig"]))
    return text.getvalue().encode(encoding, "backslashreplace")


def as_parquet(draw: st.DrawFn, table: list[tuple[str, list[Any]]]) -> bytes:
    arrays = []
    for _, cells in table:
        try:
            array = pa.array(cells)
            if array.null_count < len(array) and draw(st.booleans()):
                array = array.dictionary_encode()
        except (pa.ArrowException, OverflowError):  # cells of several kinds; a date after the year 9999
            array = pa.array([str(cell) for cell in cells])
        arrays.append(array)
    file = io.BytesIO()
    pq.write_table(pa.Table.from_arrays(arrays, [name for name, _ in table]), file)
    return file.getvalue()


def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """Cut, or with other bytes somewhere; mostly as it was."""
    if not content or not seldom(draw):
        return content
    place = draw(st.integers(0, len(content) - 1))
    return content[:place] + draw(st.sampled_from([b"", b"\0", b"\xff", b'"', b"\n", content[place + 1 :]]))


@st.composite
def files(draw: st.DrawFn) -> dict[str, bytes]:
    """The two raw tables by file name."""
    found = {}
    for name in KNOWN:
        table = draw(columns(name))
        ending = draw(st.sampled_from([".csv", ".csv", ".csv.gz", ".parquet", ".parquet"]))
        try:
            content = (as_parquet if ending == ".parquet" else as_csv)(draw, table)
        except (pa.ArrowException, UnicodeEncodeError):  # what Parquet cannot hold
            ending, content = ".csv", as_csv(draw, table)
        content = gzip.compress(content) if ending == ".csv.gz" else content
        if ending == ".parquet" and draw(st.booleans()):  # a folder of parts, each with types of its own
            half = draw(st.integers(0, len(table[0][1])))
            for part, rows in (("day=1/a", slice(half)), ("b", slice(half, None))):
                cut = [(name, cells[rows]) for name, cells in table]
                found[f"{name}.parquet/{part}.parquet"] = damaged(draw, as_parquet(draw, cut))
        else:
            found[name + ending] = damaged(draw, content)
    return found


def through(raw: RawTables, *, checked: bool) -> None:
    """What the first stages do, with limits that so small a table keeps."""
    params = load_params(ROOT / "params.yaml")
    if checked:
        limits = params.validate_.model_copy(update={"min_users": 1, "min_items": 1, "min_interactions": 1})
        raise_on_errors(validate_tables(raw, params=limits, tail_max_count=params.tag.tail_max_count, docs_dir=None))
    split = split_interactions(raw.interactions, params=params.split, seed=1, order=raw.order)
    tag_items(raw.items, split.train, params=params.tag, seed=1)


@settings(deadline=None, max_examples=EXAMPLES, database=None, suppress_health_check=list(HealthCheck))
@given(tables=files(), encoded=st.booleans(), checked=st.integers(0, 9))
def test_any_table_is_taken_or_refused(tmp_path: Path, tally, tables: dict[str, bytes], encoded: bool, checked: int):
    folder = tmp_path / "data"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, content in tables.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    try:
        raw = read_raw(folder, encoded=encoded)
    except LlmI2iError as error:
        outcome = "refused by the reader" if error.where == str(folder) else "refused without the folder's name"
    else:
        try:
            through(raw, checked=checked == 0 and not encoded)
            outcome = "taken"
        except LlmI2iError:
            outcome = "refused by a stage"
    assert outcome != "refused without the folder's name"
    tally[f"tables: {outcome}"] += 1
