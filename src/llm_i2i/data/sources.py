"""Raw tables from CSV or Parquet: every problem of both files in one error, nothing repaired in silence."""

import csv
import logging
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.csv as pa_csv

from llm_i2i.data.columns import as_numbers, as_text, as_timestamps
from llm_i2i.errors import DataError
from llm_i2i.schema import ITEM_ID, POSITION, RATING, TIMESTAMP, USER_ID

logger = logging.getLogger(__name__)

_TEXT_COLUMNS = (USER_ID, ITEM_ID, "title", "category", "brand", "year")
_SHOWN = 3  # problems of one kind that a message spells out
_BLOCK_BYTES = 1 << 24


@dataclass(frozen=True)
class RawTables:
    """The two raw tables with checked columns.

    Attributes:
        interactions: user_id, item_id (str; missing stays missing), timestamp (int64, seconds, or the
            given `position` where there is no time), rating (float64) if given, further columns.
        items: item_id, title (str; missing stays missing), further columns.
        order: The column of the file that orders a user's interactions: "timestamp" or "position".
    """

    interactions: pd.DataFrame
    items: pd.DataFrame
    order: str


def read_raw(data_dir: Path) -> RawTables:
    """Read `interactions` and `items`, each from exactly one of NAME.csv and NAME.parquet.

    CSV: UTF-8 (a byte order mark is fine), comma separated, a header line; an empty cell is missing, and
    no other word ("NA", "null") is. Identifiers stay as written: "007" is not "7".

    Args:
        data_dir: Folder with the raw tables.

    Returns:
        The tables, rows in file order.

    Raises:
        DataError: A file is missing, given twice, not UTF-8 or malformed; columns are missing; a time or
            a rating is no finite number. All problems of both files are listed at once.
    """
    problems: list[str] = []
    interactions = _read(data_dir, "interactions", (USER_ID, ITEM_ID), problems)
    items = _read(data_dir, "items", (ITEM_ID, "title"), problems)
    order = TIMESTAMP
    if interactions is not None:
        order = _order_column(interactions, problems)
        if order == POSITION:
            interactions = interactions.rename(columns={POSITION: TIMESTAMP})
    if problems or interactions is None or items is None:
        lines = "".join(f"\n  {problem}" for problem in problems)
        raise DataError(str(data_dir), f"{len(problems)} problem(s){lines}", fix="correct the file(s)")
    logger.info(
        "read %s interactions and %s items from %s", f"{len(interactions):,}", f"{len(items):,}", data_dir
    )
    return RawTables(interactions, items, order)


def _order_column(interactions: pd.DataFrame, problems: list[str]) -> str:
    """The column that orders a user's interactions; a problem if there is none."""
    if TIMESTAMP in interactions:
        return TIMESTAMP
    if POSITION not in interactions:
        found = list(interactions.columns)
        problems.append(f"interactions: neither {TIMESTAMP!r} nor {POSITION!r} among the columns {found}")
        return TIMESTAMP
    return POSITION


def _read(data_dir: Path, name: str, required: tuple[str, ...], problems: list[str]) -> pd.DataFrame | None:
    """Read one table and convert its known columns; problems are appended, None if it cannot be read."""
    found = [path for path in (data_dir / f"{name}.csv", data_dir / f"{name}.parquet") if path.is_file()]
    if len(found) != 1:
        what = "both files are there" if found else "no such file"
        problems.append(f"{name}.csv / {name}.parquet: {what}; expected exactly one")
        return None
    path = found[0]
    table = _read_csv(path, problems) if path.suffix == ".csv" else _read_parquet(path, problems)
    if table is None:
        return None
    missing = [column for column in required if column not in table]
    if missing:
        hint = " (is it comma separated?)" if len(table.columns) == 1 else ""
        problems.append(f"{path.name}: columns {missing} are missing, found {list(table.columns)}{hint}")
    return _convert(table, path.name, problems)


def _convert(table: pd.DataFrame, where: str, problems: list[str]) -> pd.DataFrame:
    """Cast the columns this project knows; other columns stay as they are."""
    converted = table.copy(deep=False)
    for column in table.columns:
        if column in _TEXT_COLUMNS:
            converted[column], wrong = as_text(table[column])
            rule = "text or an integer"
        elif column in {TIMESTAMP, POSITION}:
            converted[column], wrong = as_timestamps(table[column])
            rule = "a finite integer (seconds since 1970) or an ISO 8601 date"
        elif column == RATING:
            converted[column], wrong = as_numbers(table[column])
            rule = "a finite number (fill the cells or drop the column)"
        else:
            continue
        if len(wrong):
            # Row 1 is the first one below the header, in CSV and Parquet alike.
            cells = table[column].iloc[wrong[:_SHOWN]].tolist()
            first = ", ".join(f"row {i + 1}: {cell!r}" for i, cell in zip(wrong[:_SHOWN], cells, strict=True))
            problems.append(
                f"{where}: column {column!r}: {len(wrong):,} row(s) hold something other than {rule} ({first})"
            )
    return converted


def _read_parquet(path: Path, problems: list[str]) -> pd.DataFrame | None:
    try:
        return pd.read_parquet(path).reset_index(drop=True)
    except Exception as error:  # noqa: BLE001 - pyarrow raises several unrelated classes for a broken file
        problems.append(f"{path.name}: no readable Parquet file ({error})")
        return None


def _read_csv(path: Path, problems: list[str]) -> pd.DataFrame | None:
    """Read every column as str; encoding, header and row shape are checked first."""
    wrong_byte, has_quotes = _scan_bytes(path)
    if wrong_byte:
        problems.append(f"{path.name}: {wrong_byte}; expected UTF-8: convert it, e.g. with `iconv -t UTF-8`")
        return None
    with path.open(encoding="utf-8-sig", newline="") as file:
        header = next(csv.reader(file), [])
    twice = sorted({name for name in header if header.count(name) > 1})
    if not header or twice:
        problems.append(f"{path.name}: {f'columns {twice} occur twice' if twice else 'the file is empty'}")
        return None
    table, failure = _parse_csv(path, header)
    # The fast reader neither numbers lines nor minds open quotes: the exact, slower pass runs where that
    # may matter.
    malformed = _malformed_rows(path, len(header)) if failure or has_quotes else []
    if table is None or malformed:
        shown = "; ".join(malformed[:_SHOWN]) or failure
        problems.append(f"{path.name}: {max(len(malformed), 1):,} malformed row(s) ({shown})")
        return None
    frame: pd.DataFrame = table.to_pandas().astype("str")
    return frame


def _parse_csv(path: Path, header: list[str]) -> tuple[pa.Table | None, str]:
    """Parse with pyarrow, every cell as a string; None and a reason if any row is malformed."""
    failures: list[str] = []

    def refuse(row: pa_csv.InvalidRow) -> str:
        failures.append(f"{row.actual_columns} cells, expected {row.expected_columns}")
        return "skip"

    try:
        table = pa_csv.read_csv(
            path,
            read_options=pa_csv.ReadOptions(block_size=_BLOCK_BYTES),
            parse_options=pa_csv.ParseOptions(newlines_in_values=True, invalid_row_handler=refuse),
            convert_options=pa_csv.ConvertOptions(
                column_types=dict.fromkeys(header, pa.string()), strings_can_be_null=True, null_values=[""]
            ),
        )
    except pa.ArrowInvalid as error:
        return None, str(error)
    return (None, failures[0]) if failures else (table, "")


def _scan_bytes(path: Path) -> tuple[str, bool]:
    """Find the first byte that is not UTF-8, and whether the file holds any double quote before it.

    Returns:
        A description with byte offset and line, or "" for a clean file; True if there is a quote.
    """
    offset, has_quotes = 0, False
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                at = f"offset {offset + error.start:,} (line {number:,})"
                return f"byte 0x{line[error.start]:02x} at {at} is not UTF-8", has_quotes
            offset += len(line)
            has_quotes = has_quotes or b'"' in line
    return "", has_quotes


def _malformed_rows(path: Path, n_columns: int) -> list[str]:
    """Every row with another number of cells than the header, and the first broken quotation."""
    malformed = []
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        begin = 1
        try:
            for row in reader:
                if row and len(row) != n_columns:
                    malformed.append(f"line {begin:,}: {len(row)} cells, expected {n_columns}")
                begin = reader.line_num + 1
        except csv.Error as error:
            malformed.append(f"line {begin:,}: broken quotation ({error})")
    return malformed
