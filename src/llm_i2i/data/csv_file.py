"""A raw table as CSV, the same bytes with any library version."""

import csv
from collections.abc import Iterable
from pathlib import Path


def write_csv(path: Path, header: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """UTF-8, minimal quotes, line feeds at line ends; temporary file, then rename.

    Args:
        path: File to write; its folder is made if absent.
        header: Names of the columns.
        rows: One iterable of cells a row.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
    partial.replace(path)
