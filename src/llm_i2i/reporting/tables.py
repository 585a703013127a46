"""A table is columns and rows of values. The page renders it by one Jinja macro, Markdown by `markdown_table`.

Caption and columns of each table stand in templates/texts.yaml.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from llm_i2i.evaluation.bootstrap import Interval
from llm_i2i.reporting.words import one_line, outcome_of, percent, signed, texts

MARKS = {"better": "▲", "worse": "▼", "none": "○"}
LEGEND = f"{MARKS['better']} better, {MARKS['worse']} worse, {MARKS['none']} no difference shown"
_SPECIAL = re.compile(r"([\\`*_\[\]<>|#~])")
Columns = Sequence[tuple[str, str]]  # (name, format): "" = text on the left, else the format of a number
Rows = Iterable[Sequence[Any]]  # values or cells; None = nothing to show


@dataclass(frozen=True)
class Cell:
    """One cell."""

    text: str  # What it says
    notes: tuple[str, ...] = ()  # Smaller lines under it
    tone: str = ""  # "better", "worse", "muted" or ""
    number: bool = True  # Whether it is right-aligned
    svg: Markup | str = ""  # A small plot beside the text, on the page only


@dataclass(frozen=True)
class Group:
    """Rows under one heading; the heading may be empty."""

    label: str
    rows: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True)
class Table:
    """A table to be rendered."""

    caption: str  # What it shows and how to read it
    header: tuple[str, ...]  # One name per column
    groups: tuple[Group, ...]  # Rows; the first cell of each names the row
    wide: bool = False  # Whether it needs more than a text column
    sticky: bool = False  # Whether the first column stays in sight when a narrow screen scrolls the table

    @property
    def rows(self) -> tuple[tuple[Cell, ...], ...]:
        """All rows, without group headings."""
        return tuple(row for group in self.groups for row in group.rows)


def view(name: str, rows: Rows | Mapping[str, Rows], /, *, columns: Columns = (), **values: Any) -> Table:
    """Make a table of values.

    Args:
        name: Which of the tables of texts.yaml: its caption and columns.
        rows: Values in the order of the columns, a `Cell` where a value has notes or a tone; or such rows by
            group heading.
        columns: Name and format of the columns that depend on the run.
        values: What the caption is filled with.

    Returns:
        The table with every value as text.
    """
    about = texts()["tables"][name]
    shown: list[tuple[str, str]] = []
    for column in about["columns"]:
        shown += columns if column == "..." else [tuple(column)]
    groups = rows if isinstance(rows, Mapping) else {"": rows}
    made = tuple(
        Group(label, tuple(tuple(map(_cell, row, [form for _, form in shown])) for row in found))
        for label, found in groups.items()
    )
    wide = bool(about.get("wide"))
    header = tuple(head for head, _ in shown)
    return Table(about["caption"].format(**values), header, made, wide, sticky=about.get("sticky", wide))


def _cell(value: Any, form: str) -> Cell:
    if isinstance(value, Cell):
        return value
    if value is None or value != value:  # noqa: PLR0124 - NaN
        return Cell("–", tone="muted", number=bool(form))
    if isinstance(value, str):
        return Cell(value, number=bool(form))
    return Cell(percent(value) if form == "%" else format(value, form), number=bool(form))


def difference_cell(interval: Interval | None, *, value: float | None = None) -> Cell:
    """A paired difference with its 95 % interval; under the value it belongs to, where one is given."""
    if interval is None:
        return Cell("–", tone="muted") if value is None else Cell(f"{value:.4f}")
    outcome = outcome_of(interval)
    lines = (f"{MARKS[outcome]} {signed(interval.mean)}", f"[{signed(interval.low)}, {signed(interval.high)}]")
    shown = lines if value is None else (f"{value:.4f}", *lines)
    return Cell(shown[0], shown[1:], outcome)


def escape_markdown(text: object) -> str:
    """Text that Markdown shows as it is: one line, no markup, no HTML, no table separator."""
    line = one_line(str(text)).replace("&", "&amp;")
    return _SPECIAL.sub(r"\\\1", line).replace(r"\<", "&lt;").replace(r"\>", "&gt;")


def markdown_table(table: Table) -> str:
    """A table with its caption under it; group headings become rows of their own."""
    first = table.rows[0] if table.rows else ()
    numbers = [cell.number for cell in first] or [False] * len(table.header)
    lines = [
        "| " + " | ".join(escape_markdown(name) for name in table.header) + " |",
        "|" + "|".join(" ---: " if number else " --- " for number in numbers) + "|",
    ]
    for group in table.groups:
        if group.label:
            lines.append(f"| **{escape_markdown(group.label)}** |" + " |" * (len(table.header) - 1))
        for row in group.rows:
            cells = ["<br>".join(escape_markdown(text) for text in (cell.text, *cell.notes)) for cell in row]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", escape_markdown(table.caption)]) + "\n"


def templates() -> Environment:
    """The templates of this package, by file name; in Markdown nothing is escaped but by the filter `md`."""
    environment = Environment(
        loader=PackageLoader("llm_i2i.reporting"), autoescape=select_autoescape(["html.j2"]),
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"md": escape_markdown, "md_table": markdown_table}
    return environment
