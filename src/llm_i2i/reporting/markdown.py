"""Markdown out of values: escaped texts and the report's tables."""

import re

from llm_i2i.reporting.tables import Table

_SPECIAL = re.compile(r"([\\`*_\[\]<>|#~])")


def escape_markdown(text: object) -> str:
    """Text that Markdown shows as it is: one line, no markup, no HTML, no table separator."""
    line = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
    line = line.replace("&", "&amp;")
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
