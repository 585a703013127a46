"""The public Amazon review data of 2014, 2018 and 2023 as this project's two raw tables.

`python -m llm_i2i.data.amazon --year 2014 --reviews PATH_OR_URL --meta PATH_OR_URL --out data`

Reviews: one JSON object per line (`.json`, `.jsonl`, also `.gz`), or the ratings-only CSV. Metadata: one object per
line; that of 2014 is written as Python dictionaries, not JSON. Formats as their publishers describe them:
He and McAuley 2016 and McAuley et al. 2015 (2014), Ni et al. 2019 (2018), Hou et al. 2024 (2023).
"""

import argparse
import ast
import csv
import gzip
import html
import json
import logging
import math
import re
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from llm_i2i.data.download import obtain_file
from llm_i2i.errors import DataError, LlmI2iError, one_message
from llm_i2i.files import write_csv
from llm_i2i.schema import ITEM_ID, RATING, TIMESTAMP, USER_ID

logger = logging.getLogger(__name__)

_COLUMNS: Final = [USER_ID, ITEM_ID, RATING, TIMESTAMP]
_MAX_TITLE: Final = 300  # characters; some "titles" are whole pages
_SHOWN: Final = 3
_MANY: Final = 0.1  # share of rows above which a filter is worth a warning
_MAX_FIELD: Final = (1 << 31) - 1  # characters of a CSV cell
_BLOCKS: Final = re.compile(r"br|p|div|li|[uo]l|t[dhr]|table|hr|h[1-6]", re.IGNORECASE)  # elements that part words
_ELEMENTS: Final = (
    "a|abbr|address|article|aside|audio|b|bdi|bdo|big|blockquote|body|br|button|canvas|caption|center|cite|code|col|"
    "colgroup|dd|del|details|dfn|dialog|div|dl|dt|em|embed|fieldset|figcaption|figure|font|footer|form|h[1-6]|head|"
    "header|hr|html|i|iframe|img|input|ins|kbd|label|legend|li|link|main|map|mark|meta|nav|noscript|object|ol|optgroup|"
    "option|p|param|path|picture|pre|q|s|samp|script|section|select|small|source|span|strike|strong|style|sub|summary|"
    "sup|svg|table|tbody|td|template|textarea|tfoot|th|thead|time|tr|tt|u|ul|var|video|wbr"
)
# A known element with nothing but attributes: "x < 5 and y > 3" and "<Untitled>" hold none. Group 1: its name.
_TAG: Final = re.compile(
    rf"</?({_ELEMENTS})(?:\s+[\w:-]+(?:\s*=\s*(?:\"[^\"]*\"|'[^']*'|[^\s\"'<>]+)))*\s*/?>|<!--.*?-->",
    re.IGNORECASE | re.DOTALL,
)
_PAGE_CODE: Final = re.compile(r"<(script|style)\b[^>]*>.*?(?:</\1\s*>|$)", re.IGNORECASE | re.DOTALL)
_SCRIPT: Final = re.compile(
    r"getTime\b|\b(?:var|let|const)\s+\w+\s*=|\bfunction\s*\w*\s*\([\w\s,]*\)\s*\{|"
    r"\(\s*\)\s*=>|\b(?:window|document)\.\w+\s*[=(.)]|\{\s*\"\w+\"\s*:|"
    r"[.#@][\w-]+[^{}]*\{\s*[\w-]+\s*:[^{}]*[;}]"
)
Json = dict[str, Any]


@dataclass(frozen=True)
class Edition:
    """How one edition spells what this project needs.

    Attributes:
        user: Key of the user.
        item: Key of the item, in reviews and metadata; 2023: the product that variants belong to.
        rating: Key of the rating.
        time: Key of the time, in seconds; 2023: in milliseconds, which stay.
        brand: Key of the brand.
        category: Key of the categories.
        csv_columns: Columns of the ratings-only CSV; empty = its own header names them.
    """

    user: str
    item: str
    rating: str
    time: str
    brand: str
    category: str
    csv_columns: tuple[str, ...]


EDITIONS: Final = {
    "2014": Edition("reviewerID", "asin", "overall", "unixReviewTime", "brand", "categories",
                    ("reviewerID", "asin", "overall", "unixReviewTime")),
    "2018": Edition("reviewerID", "asin", "overall", "unixReviewTime", "brand", "category",
                    ("asin", "reviewerID", "overall", "unixReviewTime")),
    "2023": Edition("user_id", "parent_asin", "rating", "timestamp", "store", "categories", ()),
}  # fmt: skip


def read_reviews(path: Path, edition: Edition) -> pd.DataFrame:
    """Read who rated what and when; of several ratings of one item by one user the first in time counts.

    Args:
        path: Reviews or ratings.
        edition: One of `EDITIONS`.

    Returns:
        user_id, item_id (str), rating (float64), timestamp (int64, in the edition's unit), in the order of the file.

    Raises:
        DataError: The file cannot be read, or a line lacks a field or holds something else.
    """
    wanted = (edition.user, edition.item, edition.rating, edition.time)
    is_csv = path.name.removesuffix(".gz").endswith(".csv")
    records = _csv_records(path, edition.csv_columns) if is_csv else _objects(path)
    rows: list[tuple[str, str, float, int]] = []
    broken = _Broken(path)
    for line, record in records:
        try:
            user, item, rating, when = (record[key] for key in wanted)
            rows.append((_id(user), _id(item), _number(rating), _whole(when)))
        except (KeyError, ValueError, TypeError, ArithmeticError) as error:
            broken.add(line, f"{type(error).__name__} {error}")
    broken.raise_if_any(f"fields {list(wanted)}")
    table = pd.DataFrame(rows, columns=_COLUMNS).astype({USER_ID: "str", ITEM_ID: "str"})
    order = table[TIMESTAMP].to_numpy().argsort(kind="stable")
    repeated = table.iloc[order].duplicated([USER_ID, ITEM_ID])
    kept = table[~repeated.reindex(table.index)].reset_index(drop=True)
    _log_dropped(f"{path}: repeated ratings of an item by a user", len(table), len(kept))
    return kept


def read_items(path: Path, edition: Edition, wanted: set[str]) -> pd.DataFrame:
    """Read title, category and brand of the wanted items; of several entries the first that has it counts, for each.

    Args:
        path: Metadata.
        edition: One of `EDITIONS`.
        wanted: Item ids.

    Returns:
        item_id, title, category, brand (str; empty = not given), sorted by item_id; every wanted item once.

    Raises:
        DataError: The file cannot be read, a line is no object, or no wanted item has an entry.
    """
    found: dict[str, tuple[str, str, str]] = {}
    for _, record in _objects(path):
        item = record.get(edition.item)
        item = str(item) if isinstance(item, str | int) else ""
        if item in wanted:
            own = (
                _title(record.get("title")),
                _category(record.get(edition.category)),
                _text(record.get(edition.brand)),
            )
            before = found.get(item, own)
            found[item] = (before[0] or own[0], before[1] or own[1], before[2] or own[2])
    if wanted and not found:
        expected, fix = "the metadata of these reviews", "name the metadata, or the --year, that belongs to the reviews"
        raise DataError(str(path), f"describes none of {len(wanted):,} items (first: {min(wanted)!r})", expected, fix)
    missing = len(wanted - found.keys())
    logger.info("%s: %s of %s items described", path, f"{len(found):,}", f"{len(wanted):,}")
    if missing:
        logger.warning("%s: %s items have no entry and get no title", path, f"{missing:,}")
    rows = [(item, *found.get(item, ("", "", ""))) for item in sorted(wanted)]
    return pd.DataFrame(rows, columns=[ITEM_ID, "title", "category", "brand"])


def k_core(table: pd.DataFrame, k: int) -> pd.DataFrame:
    """Drop users and items with fewer than k interactions until none is left; the result is unique.

    Args:
        table: With user_id and item_id.
        k: Smallest number of interactions; 0 or 1 keeps all.

    Returns:
        The rows that stay, in their order.

    Raises:
        DataError: No row stays.
    """
    kept = table
    while True:
        enough = np.ones(len(kept), dtype=np.bool_)
        for column in (USER_ID, ITEM_ID):
            codes, _ = pd.factorize(kept[column])
            enough &= np.bincount(codes)[codes] >= k if len(codes) else enough
        if enough.all():
            break
        kept = kept[enough]
    if kept.empty:
        raise DataError(f"{k}-core", f"nothing is left of {len(table):,} rows", "a smaller k")
    _log_dropped(f"{k}-core", len(table), len(kept))
    return kept.reset_index(drop=True)


def _log_dropped(what: str, before: int, after: int) -> None:
    """Say how many rows went, as a warning where it is more than a tenth."""
    level = logging.WARNING if before - after > _MANY * before else logging.INFO
    share = 100 * (before - after) / max(before, 1)
    logger.log(level, "%s: %s of %s rows dropped (%.1f %%)", what, f"{before - after:,}", f"{before:,}", share)


class _Broken:
    """Collects broken lines for one error."""

    def __init__(self, path: Path) -> None:
        self._path, self._count, self._first = path, 0, [""] * 0

    def add(self, line: int, why: str) -> None:
        self._count += 1
        if len(self._first) < _SHOWN:
            self._first.append(f"line {line:,}: {why:.120}")

    def raise_if_any(self, expected: str) -> None:
        if self._count:
            shown = "; ".join(self._first)
            raise DataError(str(self._path), f"{self._count:,} broken line(s) ({shown})", expected)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines with their numbers, decompressed where the name ends in .gz."""
    opened: Callable[..., Any] = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8-sig", newline="\n") as file:
            yield from enumerate(file, start=1)
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise DataError(str(path), f"cannot be read ({error})", "a whole file in UTF-8", "obtain it again") from error


def _objects(path: Path) -> Iterator[tuple[int, Json]]:
    """One dictionary per line: JSON, else a Python literal."""
    broken = _Broken(path)
    for number, line in _lines(path):
        if not line.strip():
            continue
        try:
            try:
                record = json.loads(line)
            except ValueError:
                record = ast.literal_eval(line.strip())
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
            broken.add(number, str(error).partition("\n")[0])
            continue
        if isinstance(record, dict):
            yield number, record
        else:
            broken.add(number, f"holds {type(record).__name__}")
    broken.raise_if_any("one object per line, as JSON or as a Python dictionary")


def _csv_records(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[int, Json]]:
    """Rows of a ratings-only CSV; `columns` empty = the first row is a header."""
    numbered = _lines(path)
    limit = csv.field_size_limit(_MAX_FIELD)
    try:
        reader = csv.reader(line for _, line in numbered)
        names = list(columns)
        for row in reader:
            if not any(cell.strip() for cell in row):
                continue
            if not names:
                names = row
                continue
            yield reader.line_num, dict(zip(names, row, strict=False))
    except csv.Error as error:
        found = f"line {reader.line_num:,} is no CSV ({error})"
        raise DataError(str(path), found, "comma separated ratings", "obtain it again") from error
    finally:
        csv.field_size_limit(limit)


def _id(value: object) -> str:
    """An identifier as text."""
    text = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
    if not text:
        raise ValueError("user or item is empty or no text")
    text.encode()  # half a surrogate pair could not be written
    return text


def _number(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{value!r} is not finite")
    return number


def _whole(value: Any) -> int:
    """A time without a fraction, exactly."""
    number = Decimal(str(value).strip())
    if abs(number) >= 2**63 or number != number.to_integral_value():
        raise ValueError(f"{value!r} is no whole number")
    return int(number)


def _text(value: object) -> str:
    """One line of plain text: tags gone, entities resolved, halves of surrogate pairs dropped."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return ""
    if isinstance(value, float) and not math.isfinite(value):
        return ""
    text = _PAGE_CODE.sub(" ", str(value))
    text = _TAG.sub(lambda tag: " " if tag[1] is None or _BLOCKS.fullmatch(tag[1]) else "", text)
    # Only whole entities: "&copy=2" in an address and "&shy" in "&shyness" are none.
    text = re.sub(r"&(?:#[0-9]+|#[xX][0-9a-fA-F]+|[A-Za-z][A-Za-z0-9]*);", lambda m: html.unescape(m[0]), text)
    # Python literals spell an emoji as two halves, which belong together.
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "ignore")
    return " ".join(text.split())


def _title(value: object) -> str:
    """The title; empty where it is the script or the style sheet of a page, as in the edition of 2018."""
    text = _text(value)
    return "" if _SCRIPT.search(text) else text[:_MAX_TITLE].rstrip()


def _category(value: object) -> str:
    """The categories from wide to narrow, joined by " > ", without empty ones; of several paths (2014) the first."""
    if isinstance(value, list) and value and isinstance(value[0], list):
        value = next((path for path in value if path), [])
    parts = value if isinstance(value, list) else [value]
    return " > ".join(text for text in map(_text, parts) if text)


def convert(*, reviews: Path, meta: Path, year: str, out: Path, core: int) -> None:
    """Write interactions.csv and items.csv.

    Args:
        reviews: Reviews or ratings.
        meta: Metadata.
        year: Edition, a key of `EDITIONS`.
        out: Folder of the two tables.
        core: k of the k-core filter; 0 = none.

    Raises:
        DataError: A file cannot be read, `out` holds other tables, or nothing is left.
    """
    for path in (out / f"{stem}{end}" for stem in ("interactions", "items") for end in (".csv", ".parquet")):
        if path.exists():
            raise DataError(str(path), "is there already", "no tables", f"move {out} away, or name another")
    edition = EDITIONS[year]
    interactions = k_core(read_reviews(reviews, edition), core)
    items = read_items(meta, edition, set(interactions[ITEM_ID]))
    write_csv(out / "interactions.csv", _COLUMNS, interactions[_COLUMNS].itertuples(index=False))
    write_csv(out / "items.csv", items.columns, items.itertuples(index=False))
    logger.info(
        "wrote %s interactions of %s users and %s items to %s",
        f"{len(interactions):,}",
        f"{interactions[USER_ID].nunique():,}",
        f"{len(items):,}",
        out,
    )


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m llm_i2i.data.amazon", description=__doc__)
    parser.add_argument("--year", choices=sorted(EDITIONS), required=True, help="edition of the data")
    for name in ("reviews", "meta"):
        parser.add_argument(f"--{name}", required=True, help="local path or http(s) URL")
        parser.add_argument(f"--{name}-sha256", default="", help="expected SHA-256 of that file")
    parser.add_argument("--core", type=int, default=5, help="k of the k-core filter, 0 = none")
    parser.add_argument("--out", type=Path, default=Path("data"), help="folder of the raw tables")
    parser.add_argument("--downloads", type=Path, default=Path(".downloads"), help="folder that keeps downloads")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        with one_message(str(options.out)):
            reviews = obtain_file(options.reviews, downloads=options.downloads, sha256=options.reviews_sha256)
            meta = obtain_file(options.meta, downloads=options.downloads, sha256=options.meta_sha256)
            convert(reviews=reviews, meta=meta, year=options.year, out=options.out, core=options.core)
    except LlmI2iError as error:
        logger.error("%s", error)  # noqa: TRY400 - the message says it all, a traceback would bury it
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
