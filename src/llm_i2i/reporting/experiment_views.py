"""How a declared experiment is shown: table, paragraph and plots, all out of its results (`evaluate_experiment`)."""

from typing import Any

import pandas as pd

from llm_i2i.evaluation.experiments import Experiment
from llm_i2i.reporting import words
from llm_i2i.reporting.collect import Json
from llm_i2i.reporting.experiments import COLUMNS, EVERY_POINT
from llm_i2i.reporting.plots import plot_differences, plot_points
from llm_i2i.reporting.results import MIN_USERS
from llm_i2i.reporting.svg import Plot
from llm_i2i.reporting.tables import LEGEND, MARKS, Cell, Table, view
from llm_i2i.reporting.words import interval_of, metric_name, plural, say, slice_name, span

_MANY = 40  # rows above which the plot of differences is unreadable


def rows_of(content: Json) -> pd.DataFrame:
    """The rows of an experiment's results as a table (`COLUMNS`)."""
    return pd.DataFrame(content["rows"], columns=list(COLUMNS))


def experiment_table(content: Json) -> Table:
    """One line per point, model and arm; under each value its differences with intervals."""
    rows = rows_of(content)
    parts = list(dict.fromkeys(zip(rows["slice"], rows["metric"], strict=True)))
    lines = []
    for (point, model, arm), group in rows.groupby(["point", "model", "arm"], sort=False):
        by_part = dict(list(group.groupby(["slice", "metric"])))
        cells = [_cell(by_part[part]) if part in by_part else None for part in parts]
        kept = float(group["synthetic_kept"].iloc[0])
        lines.append((point, words.run_name(model, arm), kept or None, *cells))
    seeds = int(rows["seeds"].max()) if len(rows) else 0
    columns = [(f"{metric_name(metric)}, {slice_name(part)}", ".4f") for part, metric in parts]
    about = {"name": content["name"], "question": content["question"], "seeds": plural(seeds, "seed")}
    over = f"users{' and seeds' if seeds > 1 else ''}"
    return view("experiment", lines, columns=columns, over=over, legend=LEGEND, min_users=MIN_USERS, **about)


def _cell(lines: pd.DataFrame) -> Cell:
    compared = lines[lines["against"] != ""].to_dict(orient="records")
    notes = [f"{MARKS[line['outcome']]} {span(interval_of(line))} to {line['against']}" for line in compared]
    tone = str(compared[0]["outcome"]) if compared else ""
    return Cell(f"{lines['value'].iloc[0]:.4f}", tuple(notes), tone)


def tell(content: Json) -> str:
    """One paragraph on what an experiment shows, in words that its numbers decide; the first metric is the main one."""
    rows = rows_of(content)
    if rows.empty:
        return say("no_point", question=content["question"])
    main = rows[rows["metric"] == rows["metric"].iloc[0]]
    points = [name for name in rows["point"].unique() if name != EVERY_POINT]
    users = {str(part): int(group["n_users"].max()) for part, group in rows.groupby("slice", sort=False)}
    counts = [plural(len(points) or 1, "point"), plural(len(content.get("seeds", ())), "seed")]
    counts += [f"{count:,} test users ({slice_name(part)})" for part, count in users.items()]
    sentences = [content["question"], f"{', '.join(counts)}."]
    for part in users:
        sentences += _slice_sentences(main[main["slice"] == part], part)
    failures = content.get("failures", {}).items()
    sentences += [say("failed", label=label, error=error) for label, error in failures]
    return " ".join([*sentences, say("flattered")])


def _slice_sentences(rows: pd.DataFrame, part: str) -> list[str]:
    """Best value, and for each comparison how many runs are better, worse or neither."""
    values, compared = rows[rows["against"] == ""], rows[rows["against"] != ""]
    key = "highest" if values["value"].max() > values["value"].min() else "equal"
    sentences = [say(key, **_highest(values, "value"))]
    for against, group in compared.groupby("against", sort=False):
        counts = group["outcome"].value_counts()
        top = _highest(group, "difference")
        number = {name: counts.get(name, 0) for name in MARKS}
        sentences.append(say("against", name=against, n=len(group), span=span(interval_of(top)), **number, **top))
    if compared.empty and part != "overall":
        sentences.append(say("no_interval", part=slice_name(part)))
    return sentences


def _highest(rows: pd.DataFrame, column: str) -> dict[str, Any]:
    """The row with the highest value of a column, the first of several, for a sentence."""
    row = rows.sort_values(column, ascending=False, kind="stable").to_dict(orient="records")[0]
    names = {"model": words.model_name(row["model"]), "metric": metric_name(row["metric"])}
    return {str(name): value for name, value in row.items()} | names | {"part": slice_name(row["slice"])}


def experiment_plots(experiment: Experiment, content: Json) -> list[Plot]:
    """The value of the main metric from point to point, and its differences with intervals."""
    rows = rows_of(content)
    main = rows[rows["metric"] == experiment.metrics[0]]
    plots = [_values_plot(experiment, main[main["slice"] == part], part) for part in experiment.slices]
    return [plot for plot in (*plots, _differences_plot(experiment, main)) if plot is not None]


def _values_plot(experiment: Experiment, rows: pd.DataFrame, part: str) -> Plot | None:
    """One line per model and arm: its value at each point; rows of one slice and metric."""
    rows = rows[rows["against"] == ""]
    labels = [label for label in rows["point"].unique() if label != EVERY_POINT]
    if len(labels) < 2:
        return None
    overrides = {point.label: point.overrides.get(experiment.x) for point in experiment.points(seeds=[0])}
    numbers: list[Any] = [overrides[label] for label in labels]
    by_number = all(type(x) in (int, float) for x in numbers)
    places = dict(zip(labels, numbers if by_number else range(len(labels)), strict=True))
    by_kept = experiment.x == "synthetic_kept"
    lines: dict[str, list[tuple[float, float]]] = {}
    constants: dict[str, float] = {}
    for row in rows.to_dict(orient="records"):
        name, label = words.run_name(row["model"], row["arm"]), row["point"]
        if label == EVERY_POINT:
            constants[name] = row["value"]
        else:
            x = row["synthetic_kept"] if by_kept else places[label]
            lines.setdefault(name, []).append((float(x), row["value"]))
    x_label = "synthetic interactions kept" if by_kept else experiment.x
    names = {"metric": metric_name(experiment.metrics[0]), "part": slice_name(part), "x_label": x_label}
    ticks, name = [] if by_number or by_kept else labels, f"{experiment.name}-{part}"
    return plot_points(lines, constants=constants, ticks=ticks, name=name, **names)


def _differences_plot(experiment: Experiment, rows: pd.DataFrame) -> Plot | None:
    """Forest plot against the first comparison that has intervals; rows of one metric."""
    names = [*(f"arm {arm}" for arm in experiment.baselines), f"point {experiment.reference}"]
    against = next((name for name in names if (rows["against"] == name).any()), None)
    entries: dict[str, Any] = {}
    for row in rows[rows["against"] == against].to_dict(orient="records"):
        label = f"{row['point']}\n{words.run_name(row['model'], row['arm'])}"
        entries.setdefault(label, {})[slice_name(row["slice"])] = interval_of(row)
    if against is None or len(entries) > _MANY:
        return None
    metric, name = metric_name(experiment.metrics[0]), f"{experiment.name}-differences"
    return plot_differences(entries, metric=metric, against=against, name=name, standalone=True)
