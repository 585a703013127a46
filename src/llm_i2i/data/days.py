"""Raw tables that grow by a file per day: `interactions.parquet` and `items.parquet` as folders of parts."""

import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from llm_i2i.data.columns import as_text
from llm_i2i.data.sources import read_cells, read_raw, read_types
from llm_i2i.errors import DataError
from llm_i2i.files import copy_file, staged, writing
from llm_i2i.schema import ITEM_ID, USER_ID

TABLES: Final = ("interactions", "items")
_FILE: Final = re.compile(rf"({'|'.join(TABLES)})\.(csv|csv\.gz|csv\.zst|parquet)")
BEFORE: Final = "before"  # what was there before the first day


class Changes(NamedTuple):
    """Rows that came and went."""

    interactions: int
    items: int
    deleted: int


def change_tables(data: Path, *, day: Path | None = None, remove: Collection[str] = ()) -> Changes:
    """Add a day's tables to the raw tables, as parts that bear the name of the day's folder, and delete users.

    Tables of one file become a folder with this file's rows, as they are, as their first part.

    Args:
        data: Folder with the raw tables; it changes as a whole or not at all.
        day: Folder with the day's `interactions` and, where there are new ones, `items`, in the columns of `data`.
        remove: Ids of users, all of whose interactions are deleted.

    Raises:
        DataError: The day's name is no word, or it is there already; a table is unreadable, or has other columns; an
            item of an interaction is unknown, or a new one is not new; an identifier is missing. A user has no
            interaction, or nobody else has any.
    """
    parts = {} if day is None else _read_day(data, day)
    with _changed(data) as out:
        for name, part in parts.items():
            _write(part, _part(out, name, _name(day)))
        deleted = _delete(out / "interactions.parquet", set(remove))
        if parts:
            try:  # every cell, and one unit of time in all parts
                read_raw(out, encoded=True)
            except DataError as error:
                raise DataError(str(day), f"does not go with {data}: {error.found}", error.expected) from error
    return Changes(len(parts.get("interactions", ())), len(parts.get("items", ())), deleted)


def _name(day: Path | None) -> str:
    return day.resolve().name if day else ""


def _read_day(data: Path, new: Path) -> dict[str, pa.Table]:
    """The day's tables, as they are to be written."""
    day = _name(new)
    if not re.fullmatch(r"\w[\w.-]*", day) or day == BEFORE:
        expected = "a name such as 2026-11-27: letters, digits, points and hyphens"
        raise DataError(str(new), f"is no name of a day: {day!r}", expected, "rename the folder")
    if any(_part(data, name, day).exists() for name in TABLES):
        found = f"day {day} is there already"
        raise DataError(str(data), found, "days that are new", f"name the folder otherwise, or delete {day}'s parts")
    names = [name for name in TABLES if name != "items" or any(new.glob("items.*"))]
    parts = {name: _fitted(read_cells(new, name), read_types(data, name), f"{new}/{name}") for name in names}
    _check_items(parts, data, new)
    return parts


def _delete(folder: Path, users: set[str]) -> int:
    """Delete these users' rows from all parts; returns how many there were."""
    found: set[str] = set()
    deleted = left = 0
    for path in sorted(folder.rglob("*.parquet")) if users else ():
        with pq.ParquetFile(path) as file:
            part = file.read()
        ids = _texts(part[USER_ID])
        gone = pc.is_in(ids, value_set=pa.array(sorted(users), pa.large_string()))
        kept = part.filter(pc.invert(gone))
        deleted, left = deleted + len(part) - len(kept), left + len(kept)
        if len(kept) < len(part):
            found |= set(pc.unique(ids.filter(gone)).to_pylist())
            path.unlink()
            if len(kept):
                _write(kept, path)
    if unknown := sorted(users - found):
        wrong = f"{len(unknown)} user(s) have no interaction (first: {unknown[0]!r})"
        raise DataError("interactions", wrong, "users of the table", "look up how the id is written there")
    if users and not left:
        raise DataError("interactions", "nobody else has an interaction", "other users")
    return deleted


@contextmanager
def _changed(data: Path) -> Iterator[Path]:
    """A copy of the raw tables as folders of parts, to change; it takes their place if nothing goes wrong."""
    with staged(data, is_folder=True) as out:
        for path in sorted(path for path in data.rglob("*") if path.is_file()):
            table = _FILE.fullmatch(path.name) if path.parent == data else None
            if table and path.suffix != ".parquet":
                _write(read_cells(data, table[1]), _part(out, table[1], BEFORE))
            else:
                copy_file(path, _part(out, table[1], BEFORE) if table else out / path.relative_to(data))
        yield out


def _part(data: Path, name: str, day: str) -> Path:
    return data / f"{name}.parquet" / f"{day}.parquet"


def _write(table: pa.Table, path: Path) -> None:
    with staged(path) as partial, writing(path, kinds=Exception):
        pq.write_table(table, partial)


def _fitted(part: pa.Table, schema: pa.Schema, where: str) -> pa.Table:
    """The part in the columns and types of the table that it is added to."""
    if set(part.column_names) != set(schema.names):
        found = f"has columns {part.column_names}"
        raise DataError(where, found, f"those of the tables before: {schema.names}", "write it as they are written")
    try:
        return part.select(schema.names).cast(schema)
    except pa.ArrowException as error:
        expected = f"the types of the tables before: {', '.join(f'{f.name} {f.type}' for f in schema)}"
        raise DataError(where, f"cannot be cast ({error})", expected, "write it as they are written") from error


def _check_items(parts: Mapping[str, pa.Table], data: Path, new: Path) -> None:
    """Refuse rows without identifiers, known items that come as new ones, and interactions with unknown ones."""
    interactions = parts["interactions"]
    missing = sum(interactions[name].null_count for name in (USER_ID, ITEM_ID))
    if missing:
        raise DataError(f"{new}/interactions", f"{missing:,} identifiers are missing", "identifiers in every row")
    known, taken = (set(_texts(t[ITEM_ID]).to_pylist()) for t in (read_cells(data, "items"), interactions))
    added = set(_texts(parts["items"][ITEM_ID]).to_pylist()) if "items" in parts else set()
    if again := sorted(added & known):
        found = f"{len(again):,} items are in {data} already (first: {again[0]!r})"
        raise DataError(f"{new}/items", found, "new items alone", "leave the known ones out: their words stay")
    if unknown := sorted(taken - known - added):
        found = f"{len(unknown):,} items are neither in {data} nor in {new}/items (first: {unknown[0]!r})"
        raise DataError(f"{new}/interactions", found, "items of the catalogue", "add them to the day's items")


def _texts(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Identifiers as every stage writes them."""
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return column.cast(kind).cast(pa.large_string())
    return pa.chunked_array([pa.array(as_text(column.to_pandas())[0], pa.large_string())])
