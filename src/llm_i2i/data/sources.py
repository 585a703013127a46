"""Raw tables from CSV or Parquet: every problem of both files in one error, nothing repaired in silence."""

import csv
import gzip
import io
import logging
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, cast
from urllib.parse import unquote

import pandas as pd
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from llm_i2i.data.columns import (
    UNITS,
    MixedUnitsError,
    as_numbers,
    as_text,
    as_timestamps,
    brief,
    skips_integers,
    without_decimal_point,
)
from llm_i2i.errors import DataError
from llm_i2i.schema import ITEM_ID, POSITION, RATING, TIMESTAMP, USER_ID, encode, encoded_from_arrow, is_encoded

logger = logging.getLogger(__name__)

# What each table is read for; the first two columns of each must be there. All others are left alone.
_WORDS: Final = ("title", "category", "brand", "year")
_KNOWN: Final = {"interactions": (USER_ID, ITEM_ID, TIMESTAMP, POSITION, RATING), "items": (ITEM_ID, *_WORDS)}
_ENDINGS: Final = (".csv", ".csv.gz", ".csv.zst", ".parquet")
_SHOWN: Final = 3  # problems of one kind that a message spells out
_BLOCK_BYTES: Final = 1 << 24
_MAX_BLOCK_BYTES: Final = (1 << 31) - 1
# What files that are damaged or may not be read raise; pyarrow's own classes do not share a base with the others.
_UNREADABLE: Final = (OSError, EOFError, ValueError, OverflowError, zlib.error, csv.Error, pa.ArrowException)
_is_integer: Final = pa.types.is_integer
_TO_CSV: Final = (
    'python -c "import pandas as pd; t = pd.read_csv({path!r}, sep={separator!r}, dtype=str, keep_default_na=False, '
    "skipinitialspace={blanks}, quoting={quoting}); t.columns = [c.strip().split(':')[0] for c in t]; "
    't.to_csv({target!r}, index=False)"'
)
# What files begin with that are something else than their name says, and what to do about it.
_OTHER_FORMS: Final = {
    b"\x1f\x8b": ("gzip", "name it {stem}.csv.gz"),
    b"\x28\xb5\x2f\xfd": ("Zstandard", "name it {stem}.csv.zst"),
    b"PAR1": ("Parquet", "name it {stem}.parquet"),
    b"PK\x03\x04": ("a zip archive or a spreadsheet", "unpack it, or save it as CSV"),
    b"BZh": ("bzip2", "unpack it"),
    b"\xfd7zXZ": ("xz", "unpack it"),
    b"\xff\xfe": ("UTF-16", "convert it with `iconv -f UTF-16 -t UTF-8`"),
    b"\xfe\xff": ("UTF-16", "convert it with `iconv -f UTF-16 -t UTF-8`"),
}
_NO_VALUE: Final = "__HIVE_DEFAULT_PARTITION__"  # of a column that folders hold
# Folders that hold old versions of a table beside the newest: only the software that wrote them knows which is which.
_LAKES: Final = {"_delta_log": "Delta", ".hoodie": "Hudi"}

Columns = Iterator[tuple[str, pa.ChunkedArray]]


@dataclass(frozen=True)
class RawTables:
    """The two raw tables with checked columns.

    Attributes:
        interactions: user_id, item_id (str or encoded; missing stays missing), timestamp (int64, in `unit`, or the
            given `position` where there is no time), rating (float64) if given.
        items: item_id, title and, if given, category, brand, year (str; missing stays missing).
        order: The column of the file that orders a user's interactions: "timestamp" or "position".
        unit: Of the timestamps, one of columns.UNITS: that of the file's numbers, and for dates the coarsest that
            keeps fractions of a second.
    """

    interactions: pd.DataFrame
    items: pd.DataFrame
    order: str
    unit: str = UNITS[0]


def read_raw(data_dir: Path, *, encoded: bool = False) -> RawTables:
    """Read `interactions` and `items`, each from exactly one of NAME.csv, NAME.csv.gz, NAME.csv.zst and NAME.parquet.

    CSV: UTF-8 (a byte order mark is fine), comma separated, a header line; an empty cell is missing, and
    no other word ("NA", "null") is. Identifiers stay as written: "007" is not "7". NAME.parquet may be a folder
    of parts, as Spark writes it.

    Args:
        data_dir: Folder with the raw tables.
        encoded: Whether the interactions' identifiers come encoded (schema.encode), in a fifth of the memory.

    Returns:
        The tables, rows in file order.

    Raises:
        DataError: A file is missing, given twice, damaged, not UTF-8 or malformed; columns are missing; a time or
            a rating is no finite number; times are in several units. All problems of both files are listed at once.
    """
    problems: list[str] = []
    interactions, unit = _read(data_dir, "interactions", problems, encoded=encoded)
    items, _ = _read(data_dir, "items", problems)
    if problems or interactions is None or items is None:
        raise _not_read(data_dir, problems)
    order = TIMESTAMP if TIMESTAMP in interactions else POSITION
    logger.info("read %s interactions and %s items from %s", f"{len(interactions):,}", f"{len(items):,}", data_dir)
    return RawTables(interactions.rename(columns={order: TIMESTAMP}), items, order, unit)


def read_items(data_dir: Path) -> pd.DataFrame:
    """Read `items` alone, as `read_raw` does.

    Raises:
        DataError: As of `read_raw`, of this file.
    """
    problems: list[str] = []
    items, _ = _read(data_dir, "items", problems)
    if problems or items is None:
        raise _not_read(data_dir, problems)
    return items


def read_cells(data_dir: Path, name: str) -> pa.Table:
    """Read the known columns of one table, cells as they stand in its file: texts, where that is CSV.

    Args:
        data_dir: Folder with the raw table.
        name: "interactions" or "items".

    Raises:
        DataError: The file is missing, given twice, damaged or malformed, or lacks a column.
    """
    problems: list[str] = []
    path = _find(data_dir, name, problems)
    table = None
    if path is not None:
        try:
            columns = (_parquet_columns if path.suffix == ".parquet" else _csv_columns)(path, name, problems)
            table = None if columns is None else pa.table(dict(columns))
        except _UNREADABLE as error:
            problems.append(f"{path.name}: cannot be read ({brief(str(error))}); write or copy it again")
    if problems or table is None:
        raise _not_read(data_dir, problems)
    return table


def read_types(data_dir: Path, name: str) -> pa.Schema:
    """The known columns of one table and the types of their cells; arguments and errors as of `read_cells`."""
    path = data_dir / f"{name}.parquet"
    if not path.exists():
        return read_cells(data_dir, name).schema
    problems: list[str] = []
    try:
        names, first = _wanted(path, name, _parquet_names(path), problems), pq.read_schema(parquet_parts(path)[0])
    except _UNREADABLE as error:
        raise _not_read(data_dir, [f"{path.name}: cannot be read ({brief(str(error))})"]) from error
    if problems:
        raise _not_read(data_dir, problems)
    kinds = {name: first.field(name).type if name in first.names else pa.string() for name in names}
    return pa.schema([(n, kind.value_type if pa.types.is_dictionary(kind) else kind) for n, kind in kinds.items()])


def _not_read(data_dir: Path, problems: list[str]) -> DataError:
    lines = "".join(f"\n  {problem}" for problem in problems)
    return DataError(str(data_dir), f"{len(problems)} problem(s){lines}", fix="correct the file(s)")


def _read(data_dir: Path, name: str, problems: list[str], *, encoded: bool = False) -> tuple[pd.DataFrame | None, str]:
    """Read one table and convert its columns; problems are appended, None if it cannot be read."""
    path = _find(data_dir, name, problems)
    if path is None:
        return None, UNITS[0]
    is_parquet = path.suffix == ".parquet"
    try:
        frame = _to_frame((_parquet_columns if is_parquet else _csv_columns)(path, name, problems), encoded=encoded)
    except _UNREADABLE as error:
        form = "Parquet" if is_parquet else "CSV"
        problems.append(f"{path.name}: no readable {form} file ({brief(str(error))}); write or copy it again")
        return None, UNITS[0]
    return (None, UNITS[0]) if frame is None else _convert(frame, path.name, problems, encoded=encoded)


def _to_frame(columns: Columns | None, *, encoded: bool) -> pd.DataFrame | None:
    """The columns of a table, one after the other, so that the texts of one identifier at a time are in memory."""
    if columns is None:
        return None
    found = {}
    for name, given in columns:
        cells = given
        if encoded and name in {USER_ID, ITEM_ID}:
            cells = cells.cast(cells.type.value_type) if pa.types.is_dictionary(cells.type) else cells
            if any(is_type(cells.type) for is_type in (pa.types.is_string, pa.types.is_large_string, _is_integer)):
                found[name] = encoded_from_arrow(cells)
        if name not in found:
            # Integers with missing values would become floats, which are exact up to 2^53 only.
            table = pa.table({name: cells}).to_pandas(
                types_mapper=lambda kind: pd.ArrowDtype(kind) if _is_integer(kind) else None, ignore_metadata=True
            )
            found[name] = table[name]
        del given, cells  # before the next are read
    return pd.DataFrame(found, copy=False)


def _find(data_dir: Path, name: str, problems: list[str]) -> Path | None:
    """The one file of a table."""
    found = [path for path in (data_dir / f"{name}{ending}" for ending in _ENDINGS) if path.exists()]
    if len(found) == 1 and (found[0].is_file() or found[0].suffix == ".parquet"):
        return found[0]
    there = sorted(path.name for path in data_dir.glob("[!.]*") if path not in found)
    others = [other for other in there if other.lower().startswith(name)]
    others = others or [other for other in there if not other.startswith(tuple(_KNOWN))]
    what = "no such file" + (f", but {', '.join(others[:_SHOWN])}" if others else "")
    if len(found) > 1:
        what = "both files are there" if len(found) == 2 else "several files are there"
    elif found:
        what = f"{found[0].name} is a folder, and only one of Parquet parts can be read"
    names = " / ".join(path.name for path in found) if len(found) > 1 else f"{name}.csv / {name}.parquet"
    problems.append(f"{names}: {what}; expected exactly one (.csv, .csv.gz, .csv.zst or .parquet)")
    return None


def _wanted(path: Path, table: str, names: list[str], problems: list[str]) -> list[str]:
    """The columns to read; what is missing or there twice is a problem."""
    known = [name for name in _KNOWN[table] if name in names]
    if TIMESTAMP in known and POSITION in known:
        known.remove(POSITION)  # where an item stood in a list shown, for one
    where = path.name
    twice = [name for name in known if names.count(name) > 1]
    if twice:
        problems.append(f"{where}: columns {twice} occur twice")
    found = brief(names)
    missing = [name for name in _KNOWN[table][:2] if name not in names]
    if missing:
        problems.append(f"{where}: columns {missing} are missing, found {found}{_how(path, names, missing)}")
    if table == "interactions" and not {TIMESTAMP, POSITION} & set(names):
        problems.append(f"{where}: neither {TIMESTAMP!r} nor {POSITION!r} among the columns {found}")
    unused = [name for name in dict.fromkeys(names) if name not in known]
    if unused:
        logger.info("%s: %d column(s) are not used: %s", where, len(unused), brief(unused))
    return [name for name in known if name not in twice]


def _how(path: Path, names: list[str], missing: list[str]) -> str:
    """What to do about a header that has the columns, but not separated by commas or by these names alone."""
    header = ",".join(names)
    separator = max("\t;|,", key=header.count) if len(names) == 1 else ","
    plain = [cell.strip().strip('"').strip().partition(":")[0] for cell in header.split(separator)]
    if not set(missing) <= set(plain):
        return " (is it comma separated?)" if len(names) == 1 else ""
    # RecBole's atomic files name types in their header, and quote nothing.
    quoting = csv.QUOTE_NONE if ":" in header else csv.QUOTE_MINIMAL
    target = str(path.with_name(f"{path.name.partition('.')[0]}.csv"))
    options = {"separator": separator, "quoting": quoting, "blanks": separator + " " in header}
    command = _TO_CSV.format(path=str(path), target=target, **options)
    return f" (is it comma separated? convert it with plain names: {command})"


def _convert(table: pd.DataFrame, where: str, problems: list[str], *, encoded: bool) -> tuple[pd.DataFrame, str]:
    """Cast every column; returns the unit of times, too."""
    converted, unit = table.copy(deep=False), UNITS[0]
    for column in table.columns:
        if column in {TIMESTAMP, POSITION}:
            try:
                converted[column], unit, wrong = as_timestamps(table[column])
            except MixedUnitsError as error:
                rule = "one unit in all rows (a column may hold seconds or milliseconds, not both)"
                problems.append(f"{where}: column {column!r}: {error}; expected {rule}")
                continue
            rule = "a finite integer (seconds since 1970) or an ISO 8601 date"
        elif column == RATING:
            converted[column], wrong = as_numbers(table[column])
            rule = "a finite number (fill the cells or drop the column)"
        else:
            is_id = encoded and column in {USER_ID, ITEM_ID}
            if is_id and is_encoded(table[column]):
                continue
            converted[column], wrong = as_text(table[column], joined=column in {"title", "category", "brand"})
            converted[column] = encode(converted[column]) if is_id else converted[column]
            if column == "year":
                converted[column] = without_decimal_point(converted[column])
            rule = "text or an integer"
        if len(wrong):
            if skips_integers(table[column]).any() and table[column].dtype != "float64":
                rule += f" ({table[column].dtype} skips integers of this size: write it as int64)"
            # Row 1 is the first one below the header, in CSV and Parquet alike.
            cells = table[column].iloc[wrong[:_SHOWN]].tolist()
            first = ", ".join(f"row {i + 1}: {brief(cell)}" for i, cell in zip(wrong, cells, strict=False))
            problems.append(
                f"{where}: column {column!r}: {len(wrong):,} row(s) hold something other than {rule} ({first})"
            )
    return converted, unit


def parquet_parts(path: Path) -> list[Path]:
    """The files of a Parquet table: itself, or a folder's, without Spark's marks and checksums."""
    if path.is_file():
        return [path]
    files = [file for file in sorted(path.rglob("*")) if file.is_file()]
    for mark, lake in _LAKES.items():
        if any(mark == file.relative_to(path).parts[0] for file in files):
            raise ValueError(f"a table of {lake}, with old versions beside the newest; write that one as plain Parquet")
    parts = [f for f in files if not any(part[0] in "._" for part in f.relative_to(path).parts)]
    if not parts:
        raise ValueError("a folder without Parquet files")
    return parts


def _of_folders(path: Path, part: Path) -> dict[str, str | None]:
    """Columns that the names of folders hold, as in `day=1/part-0.parquet`; None is missing."""
    pairs = [folder.partition("=") for folder in part.relative_to(path).parts[:-1]]
    return {key: None if value == _NO_VALUE else unquote(value) for key, sign, value in pairs if sign}


def _parquet_names(path: Path) -> list[str]:
    """Columns of the table, in the order of the first part; those that only other parts have come after."""
    names: list[str] = []
    for part in parquet_parts(path):
        with _opened_part(path, part) as file:
            own = [*file.schema_arrow.names, *_of_folders(path, part)]
        names += own if not names else [name for name in own if name not in names]
    return names


def _parquet_columns(path: Path, name: str, problems: list[str]) -> Columns:
    """Read the known columns of all parts, in the order of the parts' names."""
    for column in _wanted(path, name, _parquet_names(path), problems):
        tables = []
        for part in parquet_parts(path):
            with _opened_part(path, part) as file:
                if column in file.schema_arrow.names:
                    tables.append(file.read([column]))
                else:
                    value, n_rows = pa.scalar(_of_folders(path, part).get(column)), file.metadata.num_rows
                    tables.append(pa.table({column: pa.repeat(value, n_rows)}))
        yield column, _joined_parts(tables, column)


@contextmanager
def _opened_part(path: Path, part: Path) -> Iterator[pq.ParquetFile]:
    """One part; what cannot be read is named, where there are several."""
    try:
        with pq.ParquetFile(part) as file:
            yield file
    except _UNREADABLE as error:
        if path == part:
            raise
        raise ValueError(f"{part.relative_to(path)}: {error}") from error


def _joined_parts(tables: list[pa.Table], column: str) -> pa.ChunkedArray:
    """A column of all parts; types that say the same in other ways, and numbers of other widths, become one."""
    kinds = list(dict.fromkeys(table.schema.field(column).type for table in tables))
    if len(kinds) > 1:
        tables = [pa.table({column: table[column].cast(_common(table.schema.field(column).type))}) for table in tables]
    try:
        return pa.concat_tables(tables, promote_options="permissive")[column]
    except pa.ArrowException as error:
        raise ValueError(f"column {column!r} is {' and '.join(map(str, kinds))} in several parts") from error


def _common(kind: pa.DataType) -> pa.DataType:
    """The type that parts with other types of the same meaning have in common; times without a zone are in UTC."""
    if pa.types.is_dictionary(kind):
        return _common(kind.value_type)
    if pa.types.is_string(kind) or pa.types.is_string_view(kind):
        return pa.large_string()
    return pa.timestamp(kind.unit, "UTC") if pa.types.is_timestamp(kind) else kind


def _csv_columns(path: Path, name: str, problems: list[str]) -> Columns | None:
    """Read the known columns as strings; encoding, header and row shape are checked first."""
    if form := _other_form(path):
        problems.append(f"{path.name}: {form}")
        return None
    wrong_byte, has_quotes = _scan_bytes(path)
    if wrong_byte:
        problems.append(f"{path.name}: {wrong_byte}; expected UTF-8: convert it, e.g. with `iconv -t UTF-8`")
        return None
    header, begin, has_rows = _header(path)
    if not header:
        problems.append(f"{path.name}: the file is empty")
        return None
    columns = _wanted(path, name, header, problems)
    if not has_rows:
        return ((column, pa.chunked_array([], pa.string())) for column in columns)
    table, failure = _parse_csv(path, columns, begin)
    # The fast reader neither numbers lines nor minds open quotes: the exact, slower pass runs where that
    # may matter.
    malformed = _malformed_rows(path, len(header), begin) if failure or has_quotes else []
    if table is None or malformed:
        shown = "; ".join(malformed[:_SHOWN]) or failure
        problems.append(f"{path.name}: {max(len(malformed), 1):,} malformed row(s) ({shown})")
        return None
    return zip(table.column_names, table.columns, strict=True)


def _other_form(path: Path) -> str:
    """What the file is instead of text, by its first bytes, and what to do; "" for text."""
    with _opened(path) as file:
        head = file.read(8)
    for begin, (form, fix) in _OTHER_FORMS.items():
        if head.startswith(begin):
            return f"holds {form}; expected comma separated UTF-8: {fix.format(stem=path.name.partition('.')[0])}"
    if b"\0" in head:
        return "holds zero bytes, as UTF-16 and UTF-32 do; expected UTF-8: convert it, e.g. with `iconv -t UTF-8`"
    return ""


def _parse_csv(path: Path, columns: list[str], begin: int) -> tuple[pa.Table | None, str]:
    """Parse with pyarrow, every cell as a string; None and a reason if any row is malformed.

    Args:
        path: The file.
        columns: Columns to keep.
        begin: Lines before the header.
    """
    failures: list[str] = []

    def refuse(row: pa_csv.InvalidRow) -> str:
        failures.append(f"{row.actual_columns} cells, expected {row.expected_columns}")
        return "skip"

    block_bytes = _BLOCK_BYTES
    while True:
        failures.clear()
        try:
            with _opened(path) as file:
                table = pa_csv.read_csv(
                    file,
                    read_options=pa_csv.ReadOptions(block_size=block_bytes, skip_rows=begin),
                    parse_options=pa_csv.ParseOptions(newlines_in_values=True, invalid_row_handler=refuse),
                    convert_options=pa_csv.ConvertOptions(
                        column_types=dict.fromkeys(columns, pa.string()),
                        include_columns=columns,
                        strings_can_be_null=True,
                        null_values=[""],
                    ),
                )
        except pa.ArrowInvalid as error:
            if "straddling" in str(error) and block_bytes < _MAX_BLOCK_BYTES:  # a row longer than a block
                block_bytes = min(8 * block_bytes, _MAX_BLOCK_BYTES)
                continue
            return None, str(error)
        return (None, failures[0]) if failures else (table, "")


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """The bytes of a CSV file, decompressed where its name says so."""
    if path.suffix == ".gz":
        with gzip.open(path) as file:
            yield cast("BinaryIO", file)
    elif path.suffix == ".zst":
        with pa.input_stream(str(path), compression="zstd") as stream:
            yield cast("BinaryIO", io.BufferedReader(stream))
    else:
        with path.open("rb") as file:
            yield file


@contextmanager
def _csv_rows(path: Path, *, strict: bool) -> Iterator[Any]:
    """The rows as Python reads them: slower than pyarrow, but with line numbers."""
    limit = csv.field_size_limit(_MAX_BLOCK_BYTES)
    try:
        with _opened(path) as file:
            yield csv.reader(io.TextIOWrapper(file, encoding="utf-8-sig", newline=""), strict=strict)
    finally:
        csv.field_size_limit(limit)


def _header(path: Path) -> tuple[list[str], int, bool]:
    """The cells of the first row that is not blank, the lines before it, and whether any row follows."""
    begin = 0
    with _csv_rows(path, strict=False) as rows:
        for row in rows:
            if any(cell.strip() for cell in row):
                return row, begin, any(rows)
            begin = rows.line_num
    return [], begin, False


def _scan_bytes(path: Path) -> tuple[str, bool]:
    """Find the first byte that is not UTF-8, and whether the file holds any double quote before it.

    Returns:
        A description with byte offset and line, or "" for a clean file; True if there is a quote.
    """
    offset, has_quotes = 0, False
    with _opened(path) as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                at = f"offset {offset + error.start:,} (line {number:,})"
                return f"byte 0x{line[error.start]:02x} at {at} is not UTF-8", has_quotes
            offset += len(line)
            has_quotes = has_quotes or b'"' in line
    return "", has_quotes


def _malformed_rows(path: Path, n_columns: int, begin: int) -> list[str]:
    """Every row after `begin` lines with another number of cells than the header, and the first broken quotation."""
    malformed = []
    with _csv_rows(path, strict=True) as reader:
        first = 1
        try:
            for row in reader:
                if row and len(row) != n_columns and first > begin:
                    malformed.append(f"line {first:,}: {len(row)} cells, expected {n_columns}")
                first = reader.line_num + 1
        except csv.Error as error:
            malformed.append(f"line {first:,}: broken quotation ({error})")
    return malformed
