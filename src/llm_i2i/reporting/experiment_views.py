"""How a declared experiment is shown: a table, a paragraph and plots, all out of its tidy rows."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from llm_i2i.evaluation.bootstrap import Interval
from llm_i2i.evaluation.experiments import Experiment
from llm_i2i.reporting.experiments import EVERY_POINT, ExperimentResult, tidy
from llm_i2i.reporting.plots import Plot, draw_plot, legend_above
from llm_i2i.reporting.results import MIN_USERS
from llm_i2i.reporting.svg import INK, SERIES
from llm_i2i.reporting.tables import MARKS, Cell, Group, Table, name_cell
from llm_i2i.reporting.verdicts import metric_name, model_name, signed

_SLICES = {"overall": "all targets", "long_tail": "long tail"}
_X_NAMES = {"synthetic_kept": "synthetic interactions kept"}
_Entry = tuple[str, list[tuple[str, Interval]]]  # label of a line, its interval by slice
_MANY = 40  # rows above which the plot of differences is unreadable


def _slice_name(name: str) -> str:
    return _SLICES.get(name, name)


def experiment_table(rows: pd.DataFrame, *, name: str, question: str) -> Table:
    """One line a point, model and arm; under each value its differences with intervals.

    Args:
        rows: As of `llm_i2i.reporting.experiments.tidy`.
        name: Name of the experiment.
        question: What it asks.

    Returns:
        The table.
    """
    columns = list(dict.fromkeys(zip(rows["slice"], rows["metric"], strict=True)))
    header = [f"{metric_name(metric)}, {_slice_name(part)}" for part, metric in columns]
    lines = []
    for (point, model, arm), group in rows.groupby(["point", "model", "arm"], sort=False):
        kept = float(group["synthetic_kept"].iloc[0])
        cells = [_cell(group[(group["slice"] == part) & (group["metric"] == m)]) for part, m in columns]
        names = (name_cell(str(point)), name_cell(f"{model_name(str(model))}, {arm}"))
        lines.append((*names, Cell(f"{kept:,.0f}" if kept else "–"), *cells))
    seeds = int(rows["seeds"].max()) if len(rows) else 0
    caption = (
        f"Experiment {name}: {question} Mean of {seeds} seed(s). Under each value: paired differences with 95 % "
        f"bootstrap intervals over users{' and seeds' if seeds > 1 else ''}; {MARKS['better']} better, "
        f"{MARKS['worse']} worse, {MARKS['none']} no difference shown; none for fewer than {MIN_USERS} users."
    )
    table_header = ("Point", "Model, arm", "Synthetic kept", *header)
    return Table(caption, table_header, (Group("", tuple(lines)),), wide=True, sticky=True)


def _cell(lines: pd.DataFrame) -> Cell:
    if lines.empty:
        return Cell("–", tone="muted")
    compared = lines[lines["against"] != ""]
    notes = tuple(
        f"{MARKS[line['outcome']]} {signed(line['difference'])} "
        f"[{signed(line['low'])}, {signed(line['high'])}] to {line['against']}"
        for line in compared.to_dict(orient="records")
    )
    tone = str(compared["outcome"].iloc[0]) if len(compared) else ""
    return Cell(f"{lines['value'].iloc[0]:.4f}", notes, tone)


def paragraph(result: ExperimentResult) -> str:
    """What the experiment shows, in words that its numbers decide.

    Args:
        result: The experiment's result.

    Returns:
        One paragraph.
    """
    experiment, rows = result.experiment, tidy(result)
    if rows.empty:
        return f"{experiment.question} No point could be measured."
    metric = experiment.metrics[0]
    main = rows[rows["metric"] == metric]
    points = [name for name in rows["point"].unique() if name != EVERY_POINT]
    users = {part: int(group["n_users"].max()) for part, group in rows.groupby("slice", sort=False)}
    sentences = [
        f"{len(points) or 1} point(s), {len(result.seeds)} seed(s), "
        + ", ".join(f"{count:,} test users ({_slice_name(str(part))})" for part, count in users.items())
        + "."
    ]
    for part in experiment.slices:
        sentences += _slice_sentences(main[main["slice"] == part], part, metric)
    sentences += [f"Point {label} could not be run: {error}" for label, error in result.failures.items()]
    sentences.append(
        "The best of several points on the test users is flattered by the choice: choose on valid, then look once."
    )
    return " ".join([experiment.question, *sentences])


def _slice_sentences(rows: pd.DataFrame, part: str, metric: str) -> list[str]:
    """Best value, and for each comparison how many runs are better, worse or neither."""
    values = rows[rows["against"] == ""]
    if values.empty:
        return []
    best = highest(values, "value")
    sentences = [
        f"{metric_name(metric)} on {_slice_name(part)} is highest, {best['value']:.4f}, for "
        f"{model_name(str(best['model']))} on arm {best['arm']} ({best['point']})."
        if values["value"].max() > values["value"].min()
        else f"{metric_name(metric)} on {_slice_name(part)} is {best['value']:.4f} in every run."
    ]
    compared = rows[rows["against"] != ""]
    for against, group in compared.groupby("against", sort=False):
        counts = group["outcome"].value_counts()
        top = highest(group, "difference")
        sentences.append(
            f"Against {against}: {counts.get('better', 0)} of {len(group)} better, {counts.get('worse', 0)} worse, "
            f"{counts.get('none', 0)} without a shown difference; the largest difference is "
            f"{signed(top['difference'])} [{signed(top['low'])}, {signed(top['high'])}] "
            f"({top['point']}, {model_name(str(top['model']))}, {top['arm']})."
        )
    if compared.empty and part != "overall":
        sentences.append(
            f"No interval is given on {_slice_name(part)}: too few test users, or nothing to compare."
        )
    return sentences


def highest(rows: pd.DataFrame, column: str) -> dict[str, Any]:
    """The row with the highest value of a column, the first of several."""
    row = rows.sort_values(column, ascending=False, kind="stable").iloc[0]
    return {str(name): value for name, value in row.items()}


def experiment_plots(result: ExperimentResult) -> list[Plot]:
    """The value of the main metric from point to point, and its differences with intervals."""
    plots = [_values_plot(result, part) for part in result.experiment.slices]
    plots.append(_differences_plot(result))
    return [plot for plot in plots if plot is not None]


def _xs(experiment: Experiment, labels: list[str]) -> dict[str, float] | None:
    """Places of the points if `x` is a number that varies; None = one place a point."""
    if not experiment.x or experiment.x == "synthetic_kept":
        return None
    changed = {point.label: point.overrides.get(experiment.x) for point in experiment.points(seeds=[0])}
    xs = {label: changed[label] for label in labels}
    if all(isinstance(x, int | float) and not isinstance(x, bool) for x in xs.values()):
        return {label: float(x) for label, x in xs.items() if isinstance(x, int | float)}
    return None


def _values_plot(result: ExperimentResult, part: str) -> Plot | None:
    """One line a model and arm: its value at each point."""
    experiment, metric = result.experiment, result.experiment.metrics[0]
    key = (part, metric)
    labels = list(dict.fromkeys(row.point for row in result.rows if row.point != EVERY_POINT))
    rows = [row for row in result.rows if key in row.means]
    if len(labels) < 2 or not rows:
        return None
    xs = _xs(experiment, labels)
    by_kept = experiment.x == "synthetic_kept"
    lines: dict[str, list[tuple[float, float]]] = {}
    constants: dict[str, float] = {}
    for row in rows:
        name = f"{model_name(row.model)}, {row.arm}"
        if row.point == EVERY_POINT:
            constants[name] = row.means[key]
            continue
        x = row.synthetic_kept if by_kept else (xs or {}).get(row.point, float(labels.index(row.point)))
        lines.setdefault(name, []).append((x, row.means[key]))

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for place, (name, dots) in enumerate(lines.items()):
            ordered = sorted(dots)
            axes.plot([x for x, _ in ordered], [y for _, y in ordered], "os^Dv"[place % 5] + "-",
                      color=SERIES[place % len(SERIES)], markersize=4.5, label=name)  # fmt: skip
        for place, (name, value) in enumerate(constants.items()):
            axes.axhline(value, color=INK, linewidth=1.0, linestyle=("--", ":", "-.")[place % 3], label=name)
        if xs is None and not by_kept:
            axes.set_xticks(range(len(labels)), labels, rotation=20, ha="right")
        axes.set_xlabel(_X_NAMES.get(experiment.x, experiment.x))
        axes.set_ylabel(metric_name(metric))
        legend_above(axes, 2)

    words = " ".join(
        f"{name}: " + ", ".join(f"{y:.4f} at {x:g}" for x, y in sorted(dots)) + "."
        for name, dots in lines.items()
    )
    title = f"{metric_name(metric)}, {_slice_name(part)}"
    return draw_plot(
        draw,
        name=f"{experiment.name}-{part}",
        title=title,
        alt=f"{title}, experiment {experiment.name}. {words}",
        caption=f"{title}, by point; broken lines: arms that are the same at every point.",
        height=2.6 + 0.12 * (len(lines) + len(constants)),
        standalone=True,
    )


def _differences_plot(result: ExperimentResult) -> Plot | None:
    """Forest plot of the main metric against the first comparison that has intervals."""
    experiment, metric = result.experiment, result.experiment.metrics[0]
    names = [*(f"arm {arm}" for arm in experiment.baselines), f"point {experiment.reference}"]
    against = next((name for name in names if any(row.differences.get(name) for row in result.rows)), "")
    entries: list[_Entry] = []
    for row in result.rows:
        found: list[tuple[str, Interval]] = [
            (part, row.differences[against][part, metric])
            for part in experiment.slices
            if (part, metric) in row.differences.get(against, {})
        ]
        if found:
            entries.append((f"{row.point}\n{model_name(row.model)}, {row.arm}", found))
    if not entries or len(entries) > _MANY:
        return None
    parts = list(dict.fromkeys(part for _, found in entries for part, _ in found))

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.axvline(0.0, color=INK, linewidth=0.9)
        for place, part in enumerate(parts):
            dots = [(y, i) for y, (_, found) in enumerate(entries) for name, i in found if name == part]
            means = np.array([interval.mean for _, interval in dots])
            errors = [[i.mean - i.low for _, i in dots], [i.high - i.mean for _, i in dots]]
            heights = [y + (place - (len(parts) - 1) / 2) * 0.26 for y, _ in dots]
            axes.errorbar(means, heights, xerr=np.maximum(errors, 0.0), fmt="os^D"[place % 4], markersize=4,
                          color=SERIES[place % len(SERIES)], capsize=2, linewidth=1.3,
                          label=_slice_name(part))  # fmt: skip
        axes.set_yticks(range(len(entries)), [label for label, _ in entries], color=INK)
        axes.set_ylim(len(entries) - 0.5, -0.5)
        axes.set_xlabel(f"difference in {metric_name(metric)} to {against}")
        legend_above(axes, len(parts))

    words = " ".join(
        f"{label.replace(chr(10), ', ')}, {_slice_name(part)}: {i.mean:+.4f} ({i.low:+.4f} to {i.high:+.4f})."
        for label, found in entries
        for part, i in found
    )
    title = f"Difference in {metric_name(metric)} to {against}"
    return draw_plot(
        draw,
        name=f"{experiment.name}-differences",
        title=title,
        alt=f"{title}, experiment {experiment.name}. {words}",
        caption=f"{title} with 95 % intervals.",
        height=1.2 + 0.5 * len(entries),
        standalone=True,
    )


def results_json(result: ExperimentResult) -> dict[str, Any]:
    """The whole result as JSON: what reports and benchmarks read back."""
    rows = tidy(result)
    records = [
        {key: value for key, value in record.items() if not _is_missing(value)}
        for record in rows.to_dict(orient="records")
    ]
    return {
        "name": result.experiment.name,
        "question": result.experiment.question,
        "seeds": list(result.seeds),
        "protocol_hash": {str(seed): value for seed, value in result.protocols.items()},
        "failures": result.failures,
        "paragraph": paragraph(result),
        "rows": records,
    }


def _is_missing(value: object) -> bool:
    return isinstance(value, float) and np.isnan(value)


def rows_of(records: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """Tidy rows out of `results_json`."""
    rows = pd.DataFrame(list(records))
    for name in ("difference", "low", "high", "outcome"):
        if name not in rows:
            rows[name] = None
    return rows
