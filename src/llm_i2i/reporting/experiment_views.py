"""How a declared experiment is shown: a table, a paragraph and plots, all out of its tidy rows."""

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from llm_i2i.evaluation.experiments import Experiment
from llm_i2i.reporting import words
from llm_i2i.reporting.experiments import COLUMNS, EVERY_POINT, ExperimentResult, tidy
from llm_i2i.reporting.plots import plot_differences, plot_points
from llm_i2i.reporting.results import MIN_USERS
from llm_i2i.reporting.svg import Plot
from llm_i2i.reporting.tables import LEGEND, MARKS, Cell, Table, view
from llm_i2i.reporting.words import interval_of, metric_name, plural, say, slice_name, span

_X_NAMES = {"synthetic_kept": "synthetic interactions kept"}
_MANY = 40  # rows above which the plot of differences is unreadable


def experiment_table(rows: pd.DataFrame, *, name: str, question: str) -> Table:
    """One line per point, model and arm of tidy rows; under each value its differences with intervals."""
    parts = list(dict.fromkeys(zip(rows["slice"], rows["metric"], strict=True)))
    lines = []
    for (point, model, arm), group in rows.groupby(["point", "model", "arm"], sort=False):
        by_part = dict(list(group.groupby(["slice", "metric"])))
        cells = [_cell(by_part[part]) if part in by_part else None for part in parts]
        kept = float(group["synthetic_kept"].iloc[0])
        lines.append((point, words.run_name(model, arm), kept or None, *cells))
    seeds = int(rows["seeds"].max()) if len(rows) else 0
    return view(
        "experiment",
        lines,
        columns=[(f"{metric_name(metric)}, {slice_name(part)}", ".4f") for part, metric in parts],
        name=name,
        question=question,
        seeds=plural(seeds, "seed"),
        over=f"users{' and seeds' if seeds > 1 else ''}",
        legend=LEGEND,
        min_users=MIN_USERS,
    )


def _cell(lines: pd.DataFrame) -> Cell:
    compared = lines[lines["against"] != ""].to_dict(orient="records")
    notes = [f"{MARKS[line['outcome']]} {span(interval_of(line))} to {line['against']}" for line in compared]
    tone = str(compared[0]["outcome"]) if compared else ""
    return Cell(f"{lines['value'].iloc[0]:.4f}", tuple(notes), tone)


def paragraph(result: ExperimentResult) -> str:
    """What the experiment shows, in words that its numbers decide."""
    experiment = result.experiment
    return tell(tidy(result), question=experiment.question, seeds=len(result.seeds), failures=result.failures)


def tell(rows: pd.DataFrame, *, question: str, seeds: int, failures: Mapping[str, str]) -> str:
    """One paragraph on what tidy rows show, in words that the numbers decide; the first metric is the main one.

    Args:
        rows: As of `llm_i2i.reporting.experiments.tidy`.
        question: What the experiment asks.
        seeds: How many seeds were run.
        failures: Why a point failed, by its label.
    """
    if rows.empty:
        return say("no_point", question=question)
    metric = rows["metric"].iloc[0]
    main = rows[rows["metric"] == metric]
    points = [name for name in rows["point"].unique() if name != EVERY_POINT]
    users = {part: int(group["n_users"].max()) for part, group in rows.groupby("slice", sort=False)}
    sentences = [
        f"{plural(len(points) or 1, 'point')}, {plural(seeds, 'seed')}, "
        + ", ".join(f"{count:,} test users ({slice_name(str(part))})" for part, count in users.items())
        + "."
    ]
    for part in users:
        sentences += _slice_sentences(main[main["slice"] == part], str(part), metric)
    sentences += [say("failed", label=label, error=error) for label, error in failures.items()]
    return " ".join([question, *sentences, say("flattered")])


def _slice_sentences(rows: pd.DataFrame, part: str, metric: str) -> list[str]:
    """Best value, and for each comparison how many runs are better, worse or neither."""
    values = rows[rows["against"] == ""]
    best = highest(values, "value")
    key = "highest" if values["value"].max() > values["value"].min() else "equal"
    shown: dict[str, Any] = {"metric": metric_name(metric), "part": slice_name(part)}
    sentences = [say(key, **(best | shown | {"model": words.model_name(best["model"])}))]
    compared = rows[rows["against"] != ""]
    for against, group in compared.groupby("against", sort=False):
        counts = group["outcome"].value_counts()
        top = highest(group, "difference")
        number = {name: counts.get(name, 0) for name in MARKS}
        shown |= {"span": span(interval_of(top)), "model": words.model_name(top["model"]), "n": len(group)}
        sentences.append(say("against", name=against, **number, **(top | shown)))
    if compared.empty and part != "overall":
        sentences.append(say("no_interval", part=slice_name(part)))
    return sentences


def highest(rows: pd.DataFrame, column: str) -> dict[str, Any]:
    """The row with the highest value of a column, the first of several."""
    row = rows.sort_values(column, ascending=False, kind="stable").iloc[0]
    return {str(name): value for name, value in row.items()}


def experiment_plots(result: ExperimentResult) -> list[Plot]:
    """The value of the main metric from point to point, and its differences with intervals."""
    main = result.rows[result.rows["metric"] == result.experiment.metrics[0]]
    experiment = result.experiment
    plots = [_values_plot(experiment, main[main["slice"] == part], part) for part in experiment.slices]
    return [plot for plot in (*plots, _differences_plot(experiment, main)) if plot is not None]


def _xs(experiment: Experiment, labels: list[str]) -> dict[str, float] | None:
    """Places of the points if `x` is a number that varies; None = one place per point."""
    overrides = {point.label: point.overrides.get(experiment.x) for point in experiment.points(seeds=[0])}
    found = {label: overrides[label] for label in labels}
    xs = {
        label: float(x)
        for label, x in found.items()
        if isinstance(x, int | float) and not isinstance(x, bool)
    }
    return xs if len(xs) == len(labels) else None


def _values_plot(experiment: Experiment, rows: pd.DataFrame, part: str) -> Plot | None:
    """One line per model and arm: its value at each point; rows of one slice and metric."""
    rows = rows[rows["against"] == ""]
    labels = [label for label in rows["point"].unique() if label != EVERY_POINT]
    if len(labels) < 2:
        return None
    xs, by_kept = _xs(experiment, labels), experiment.x == "synthetic_kept"
    lines: dict[str, list[tuple[float, float]]] = {}
    constants: dict[str, float] = {}
    for row in rows.to_dict(orient="records"):
        name, label = words.run_name(row["model"], row["arm"]), row["point"]
        if label == EVERY_POINT:
            constants[name] = row["value"]
        else:
            x = row["synthetic_kept"] if by_kept else (xs or {}).get(label, float(labels.index(label)))
            lines.setdefault(name, []).append((x, row["value"]))
    metric = metric_name(experiment.metrics[0])
    return plot_points(
        lines,
        constants=constants,
        ticks=labels if xs is None and not by_kept else [],
        x_label=_X_NAMES.get(experiment.x, experiment.x),
        metric=metric,
        part=slice_name(part),
        name=f"{experiment.name}-{part}",
    )


def _differences_plot(experiment: Experiment, rows: pd.DataFrame) -> Plot | None:
    """Forest plot against the first comparison that has intervals; rows of one metric."""
    names = [*(f"arm {arm}" for arm in experiment.baselines), f"point {experiment.reference}"]
    against = next((name for name in names if (rows["against"] == name).any()), "")
    found = rows[rows["against"] == against] if against else rows.head(0)
    entries = [
        (
            f"{point}\n{words.run_name(model, arm)}",
            {slice_name(row["slice"]): interval_of(row) for row in group.to_dict(orient="records")},
        )
        for (point, model, arm), group in found.groupby(["point", "model", "arm"], sort=False)
    ]
    if not entries or len(entries) > _MANY:
        return None
    return plot_differences(
        entries,
        metric=metric_name(experiment.metrics[0]),
        against=against,
        name=f"{experiment.name}-differences",
        standalone=True,
    )


def results_json(result: ExperimentResult) -> dict[str, Any]:
    """The whole result as JSON: what reports and benchmarks read back."""
    records = tidy(result).to_dict(orient="records")
    return {
        "name": result.experiment.name,
        "question": result.experiment.question,
        "seeds": list(result.seeds),
        "protocol_hash": {str(seed): value for seed, value in result.protocols.items()},
        "failures": result.failures,
        "rows": [{key: value for key, value in row.items() if pd.notna(value)} for row in records],
    }


def rows_of(records: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """Tidy rows out of `results_json`."""
    return pd.DataFrame(list(records), columns=list(COLUMNS))
