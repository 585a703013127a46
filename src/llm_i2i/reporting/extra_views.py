"""How the report shows its optional parts: experiments, the gate's verdict, another revision."""

from dataclasses import dataclass
from typing import Any

from llm_i2i.reporting.experiment_views import experiment_table, rows_of
from llm_i2i.reporting.extras import Extras, Json
from llm_i2i.reporting.tables import MARKS, Cell, Group, Table, name_cell
from llm_i2i.reporting.verdicts import metric_name, model_name, signed


@dataclass(frozen=True)
class Shown:
    """An optional part, ready for the templates.

    Attributes:
        title: Heading.
        text: Paragraph.
        tables: Its tables.
        images: (alternative text, data URI).
        points: Lines of a list.
    """

    title: str
    text: str
    tables: tuple[Table, ...] = ()
    images: tuple[tuple[str, str], ...] = ()
    points: tuple[str, ...] = ()


def shown(extras: Extras) -> dict[str, Any]:
    """The optional parts as the templates show them.

    Returns:
        experiments: a tuple of `Shown`; gate and comparison: `Shown` or None.
    """
    return {
        "experiments": tuple(_experiment(content) for content in extras.experiments),
        "gate": None if extras.gate is None else _gate(extras.gate),
        "comparison": None if extras.comparison is None else _comparison(extras.comparison),
    }


def _experiment(content: Json) -> Shown:
    table = experiment_table(
        rows_of(content["rows"]), name=str(content["name"]), question=str(content["question"])
    )
    images = tuple((str(name), str(uri)) for name, uri in content["images"] if uri)
    return Shown(str(content["name"]), str(content["paragraph"]), (table,), images)


def _gate(content: Json) -> Shown:
    """The verdict and its reasons, each as a line."""
    passed = content.get("passed")
    verdict = str(content.get("verdict") or ("passed" if passed else "not passed"))
    reasons = content.get("reasons") or []
    return Shown("Gate", f"Verdict of the gate: {verdict}.", points=tuple(_line(entry) for entry in reasons))


def _line(entry: object) -> str:
    if isinstance(entry, dict):
        return ", ".join(f"{key}: {value}" for key, value in entry.items())
    return str(entry)


def _comparison(content: Json) -> Shown:
    """Old and new value of every metric, and the parameters that differ."""
    lines = tuple(
        (
            name_cell(f"{model_name(str(row['model']))}, {row['arm']}"),
            name_cell(f"{metric_name(str(row['metric']))}, {row['slice']}"),
            Cell(f"{row['old']:.4f}"),
            Cell(f"{row['new']:.4f}"),
            _difference_cell(row),
        )
        for row in content["rows"]
    )
    against = f"{content['against']} ({str(content['commit'])[:12]})"
    metrics = Table(
        f"Test metrics of {against} and of this revision, under one protocol. Difference with its paired 95 % "
        "bootstrap interval over users where the per-user ranks of both are at hand.",
        ("Model, arm", "Metric", "There", "Here", "Difference"),
        (Group("", lines),),
        wide=True,
        sticky=True,
    )
    changes = content["params"]
    params = Table(
        "Parameters that differ.",
        ("Parameter", "There", "Here"),
        (Group("", tuple(tuple(name_cell(str(c[k])) for k in ("key", "old", "new")) for c in changes)),),
    )
    text = f"This revision against {against}: {len(changes)} parameter(s) differ."
    if content["missing"]:
        text += f" Only one of the two has {', '.join(content['missing'])}."
    return Shown(f"Against {content['against']}", text, (metrics, params) if changes else (metrics,))


def _difference_cell(row: Json) -> Cell:
    if "outcome" not in row:
        return Cell(signed(row["new"] - row["old"]))
    notes = (f"[{signed(row['low'])}, {signed(row['high'])}]",)
    return Cell(f"{MARKS[row['outcome']]} {signed(row['difference'])}", notes, str(row["outcome"]))
