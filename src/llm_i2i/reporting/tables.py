"""The tables of results: values, differences, buckets, catalogue."""

from dataclasses import dataclass, field

from llm_i2i import schema
from llm_i2i.evaluation.bootstrap import Interval
from llm_i2i.reporting.collect import BASELINE_ARM, ReportInputs, Run
from llm_i2i.reporting.results import (
    CATALOGUE_METRICS,
    LONG_TAIL,
    MAIN_SLICES,
    METRICS,
    MIN_USERS,
    OVERALL,
    SLICES,
    Results,
    catalogue_metrics,
    main_k,
    outcome_of,
)
from llm_i2i.reporting.verdicts import MINUS, metric_name, model_name, signed

NOT_MEASURED = "not measured here"
SHOWN_KS = 3  # cut-offs in the main table; the others are in the metrics files and the summary
MARKS = {"better": "▲", "worse": "▼", "none": "○"}


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        text: What it says.
        notes: Smaller lines under it.
        tone: "better", "worse", "muted" or "".
        number: Whether it is right-aligned.
    """

    text: str
    notes: tuple[str, ...] = ()
    tone: str = ""
    number: bool = True


@dataclass(frozen=True)
class Group:
    """Rows under one heading; the heading may be empty."""

    label: str
    rows: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True)
class Table:
    """A table to be rendered.

    Attributes:
        caption: What it shows and how to read it.
        header: One name a column.
        groups: Rows; the first cell of each names the row.
        wide: Whether it needs more than a text column.
        sticky: Whether the first column stays in sight when a narrow screen scrolls the table.
    """

    caption: str
    header: tuple[str, ...]
    groups: tuple[Group, ...] = field(default_factory=tuple)
    wide: bool = False
    sticky: bool = False

    @property
    def rows(self) -> tuple[tuple[Cell, ...], ...]:
        """All rows, without group headings."""
        return tuple(row for group in self.groups for row in group.rows)


def name_cell(text: str, tone: str = "") -> Cell:
    """A left-aligned cell."""
    return Cell(text, tone=tone, number=False)


def _run_cell(run: Run) -> Cell:
    """A run as the name of its row."""
    return name_cell(f"{model_name(run[0])}, {run[1]}")


def slice_label(name: str, inputs: ReportInputs) -> str:
    """A slice of the test targets in words."""
    tag = inputs.params.tag
    return {
        OVERALL: "All targets",
        "head": f"Head (most frequent {100 * tag.head_share:g} % of items)",
        "mid": "Mid (between)",
        "tail": f"Tail (1 to {tag.tail_max_count} training interactions)",
        "cold": "Cold (no training interaction)",
        LONG_TAIL: f"Long tail (least frequent {100 * tag.long_tail_share:g} % of items)",
    }[name]


def _value_cell(results: Results, run: Run, slice_name: str, metric: str) -> Cell:
    """Value of a run, with its difference to the baseline and the interval where there is one."""
    value = results.means[run].get((slice_name, metric))
    if value is None:
        return Cell("–", tone="muted")
    interval = results.differences.get(run, {}).get((slice_name, metric))
    if interval is None:
        return Cell(f"{value:.4f}")
    outcome = outcome_of(interval)
    notes = (
        f"{MARKS[outcome]} {signed(interval.mean)}",
        f"[{signed(interval.low)}, {signed(interval.high)}]",
    )
    return Cell(f"{value:.4f}", notes, outcome)


def _runs(inputs: ReportInputs) -> list[Run]:
    return [(model, arm) for model in inputs.models for arm in inputs.arms if (model, arm) in inputs.metrics]


def _row(results: Results, run: Run, slice_name: str, metrics: list[str]) -> tuple[Cell, ...]:
    cells = [_value_cell(results, run, slice_name, metric) for metric in metrics]
    return (_run_cell(run), *cells)


def _group_label(name: str, inputs: ReportInputs, results: Results) -> str:
    return f"{slice_label(name, inputs)}: {results.n_users[name]:,} test users"


def main_table(inputs: ReportInputs, results: Results) -> Table:
    """Model x arm: Recall and NDCG at every cut-off, overall, tail and long tail, with differences."""
    metrics = [f"{name}@{k}" for name in METRICS for k in inputs.params.evaluate.ks[:SHOWN_KS]]
    return Table(
        caption="Test metrics by model and arm. Under each value: paired difference to arm "
        f"{BASELINE_ARM} of the same model with its 95 % bootstrap interval; {MARKS['better']} better, "
        f"{MARKS['worse']} worse, {MARKS['none']} no difference shown. "
        f"No interval is given for fewer than {MIN_USERS} test users.",
        header=("Model, arm", *(metric_name(metric) for metric in metrics)),
        groups=tuple(
            Group(
                _group_label(name, inputs, results),
                tuple(_row(results, run, name, metrics) for run in _runs(inputs)),
            )
            for name in MAIN_SLICES
            if results.n_users[name]
        ),
        wide=True,
        sticky=True,
    )


def bucket_table(inputs: ReportInputs, results: Results) -> Table:
    """Model x arm by bucket of the test target, at the cut-off of the verdict."""
    names = [name for name in SLICES if name != OVERALL and results.n_users[name]]
    empty = [name for name in schema.BUCKETS if not results.n_users[name]]
    missing = f" No test target is in bucket {' or '.join(empty)}." if empty else ""
    words = "; ".join(slice_label(name, inputs) for name in names)
    groups = []
    for name in METRICS:
        metric = f"{name}@{main_k(inputs.params.evaluate.ks)}"
        rows = tuple(
            (
                _run_cell(run),
                *(_value_cell(results, run, slice_name, metric) for slice_name in names),
            )
            for run in _runs(inputs)
        )
        groups.append(Group(metric_name(metric), rows))
    return Table(
        caption=f"By bucket of the test target, with differences to arm {BASELINE_ARM} as above. {words}. "
        f"The long tail is counted apart from the buckets.{missing}",
        header=("Model, arm", *(f"{_SHORT[name]} ({results.n_users[name]:,})" for name in names)),
        groups=tuple(groups),
        wide=True,
        sticky=True,
    )


def control_table(inputs: ReportInputs, results: Results) -> Table | None:
    """LLM arms against the control arms that add as many pairs a user; None if there is no such pair."""
    if not results.against_controls:
        return None
    names = [name for name in SLICES if results.n_users[name] >= MIN_USERS]
    groups = []
    for model in inputs.models:
        rows = []
        for (of_model, arm, control), differences in results.against_controls.items():
            if of_model == model:
                kept = [int(inputs.kept[name].get("synthetic_kept", 0)) for name in (arm, control)]
                label = f"{arm} ({kept[0]:,} pairs) {MINUS} {control} ({kept[1]:,} pairs)"
                cells = [_difference_cell(differences.get((name, results.main_metric))) for name in names]
                rows.append((name_cell(label), *cells))
        groups.append(Group(model_name(model), tuple(rows)))
    return Table(
        caption=f"{metric_name(results.main_metric)} of the LLM's pairs less that of as many pairs a user by a cheap "
        "recommender, each through the same filter: what the LLM adds beyond any augmentation. Paired differences "
        "with 95 % bootstrap intervals.",
        header=("Arms", *(f"{_SHORT.get(name, 'All')} ({results.n_users[name]:,})" for name in names)),
        groups=tuple(groups),
        wide=True,
        sticky=True,
    )


def _difference_cell(interval: Interval | None) -> Cell:
    if interval is None:
        return Cell("–", tone="muted")
    outcome = outcome_of(interval)
    return Cell(
        f"{MARKS[outcome]} {signed(interval.mean)}",
        (f"[{signed(interval.low)}, {signed(interval.high)}]",),
        outcome,
    )


_SHORT = {"head": "Head", "mid": "Mid", "tail": "Tail", "cold": "Cold", LONG_TAIL: "Long tail"}
_CATALOGUE_NAMES = {
    "coverage": "Coverage",
    "tail_exposure": "Tail share",
    "gini": "Gini",
    "average_popularity": "Popularity",
    "reachable_share": "Reachable",
    "reachable_share_tail": "Reachable, tail",
    "reachable_share_long_tail": "Reachable, long tail",
}


def _catalogue_text(name: str, value: float | None) -> str:
    if value is None:
        return "–"
    if name.startswith(("coverage", "tail_exposure", "reachable")):
        return f"{100 * value:.1f} %"
    return f"{value:.3f}" if name.startswith("gini") else f"{value:,.1f}"


def catalogue_table(inputs: ReportInputs) -> Table:
    """Coverage, concentration and reachable share by model and arm."""
    runs = _runs(inputs)
    found = {run: catalogue_metrics(inputs.metrics[run], main_k(inputs.params.evaluate.ks)) for run in runs}
    order = list(CATALOGUE_METRICS)
    names = sorted(
        {name for metrics in found.values() for name in metrics},
        key=lambda name: (order.index(name.partition("@")[0]), name),
    )
    header = [_CATALOGUE_NAMES[base] + at + k for base, at, k in (name.partition("@") for name in names)]
    rows = tuple(
        (_run_cell(run), *(Cell(_catalogue_text(name, found[run].get(name))) for name in names))
        for run in runs
    )
    return Table(
        caption="The whole catalogue. Reachable: test targets that get any score at all, the ceiling of every "
        "recall above. Coverage: items recommended to anyone. Tail share: recommended places that hold a tail "
        "item. Gini: 0 = all items equally often, 1 = one item only. Popularity: mean training interactions of "
        "a recommended item.",
        header=("Model, arm", *header),
        groups=(Group("", rows),),
        wide=True,
        sticky=True,
    )
