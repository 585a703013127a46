"""The tables of results: values, differences, buckets, controls, catalogue."""

from llm_i2i import schema
from llm_i2i.reporting import words
from llm_i2i.reporting.collect import ReportInputs
from llm_i2i.reporting.results import HEADLINES, METRICS, MIN_USERS, Key, Results, catalogue_metrics, main_k
from llm_i2i.reporting.tables import LEGEND, Cell, Table, difference_cell, view
from llm_i2i.schema import OVERALL, SLICES

SHOWN_KS = 3  # cut-offs in the main table; the others are in the metrics files and the summary


def _rows(results: Results, keys: list[Key]) -> list[tuple[Cell | str, ...]]:
    """One row per run: its values, each with its difference to the baseline and the interval where there is one."""
    rows: list[tuple[Cell | str, ...]] = []
    for run, means in results.means.items():
        found = results.differences.get(run, {})
        rows.append((words.run_name(*run), *(difference_cell(found.get(key), value=means.get(key)) for key in keys)))
    return rows


def _columns(results: Results, slices: list[str]) -> list[tuple[str, str]]:
    return [(f"{words.first_upper(words.slice_name(name))} ({results.n_users[name]:,})", ".4f") for name in slices]


def main_table(inputs: ReportInputs, results: Results) -> Table:
    """Model x arm: Recall and NDCG at every cut-off, overall and on the tail, with differences."""
    metrics = [f"{name}@{k}" for name in METRICS for k in inputs.params.evaluate.ks[:SHOWN_KS]]
    rows = {}
    for part in (part for part in HEADLINES if results.n_users[part]):
        heading = f"{words.slice_meaning(part, inputs.params.tag)}: {results.n_users[part]:,} test users"
        rows[heading] = _rows(results, [(part, metric) for metric in metrics])
    columns = [(words.metric_name(metric), ".4f") for metric in metrics]
    return view("main", rows, columns=columns, legend=LEGEND, min_users=MIN_USERS)


def bucket_table(inputs: ReportInputs, results: Results) -> Table:
    """Model x arm by bucket of the test target, at the cut-off of the verdict."""
    names = [name for name in SLICES if name != OVERALL and results.n_users[name]]
    empty = [name for name in schema.BUCKETS if not results.n_users[name]]
    missing = f" No test target is in bucket {' or '.join(empty)}." if empty else ""
    meanings = "; ".join(words.slice_meaning(name, inputs.params.tag) for name in names)
    metrics = (f"{name}@{main_k(inputs.params.evaluate.ks)}" for name in METRICS)
    rows = {words.metric_name(metric): _rows(results, [(part, metric) for part in names]) for metric in metrics}
    return view("bucket", rows, columns=_columns(results, names), meanings=meanings, missing=missing)


def control_table(inputs: ReportInputs, results: Results) -> Table | None:
    """LLM arms against the control arms that add as many pairs per user; None if there is no such pair."""
    if not results.against_controls:
        return None
    names = [name for name in SLICES if results.n_users[name] >= MIN_USERS]
    kept = {arm: f"{arm} ({int(inputs.kept[arm].get('synthetic_kept', 0)):,} pairs)" for arm in inputs.arms}
    rows: dict[str, list[tuple[Cell | str, ...]]] = {}
    for (model, arm, control), found in results.against_controls.items():
        cells = (difference_cell(found.get((name, results.main_metric))) for name in names)
        label = f"{kept[arm]} {words.MINUS} {kept[control]}"
        rows.setdefault(words.model_name(model), []).append((label, *cells))
    metric = words.metric_name(results.main_metric)
    return view("control", rows, columns=_columns(results, names), metric=metric)


def catalogue_table(inputs: ReportInputs) -> Table:
    """Coverage, concentration and reachable share by model and arm."""
    k, shown = main_k(inputs.params.evaluate.ks), words.texts()["catalogue"]
    found = {run: catalogue_metrics(metrics, k) for run, metrics in inputs.metrics.items()}
    measured = {name for metrics in found.values() for name in metrics}
    names = [name for base in shown for name in (base, f"{base}@{k}") if name in measured]
    split = (name.partition("@") for name in names)
    columns = [(shown[base][0] + at + cut, shown[base][1]) for base, at, cut in split]
    rows = [(words.run_name(*run), *map(metrics.get, names)) for run, metrics in found.items()]
    return view("catalogue", rows, columns=columns)
