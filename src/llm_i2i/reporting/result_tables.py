"""The tables of results: values, differences, buckets, controls, catalogue."""

from llm_i2i import schema
from llm_i2i.reporting.collect import BASELINE_ARM, ReportInputs, Run
from llm_i2i.reporting.results import (
    CATALOGUE_METRICS,
    HEADLINES,
    METRICS,
    MIN_USERS,
    Results,
    catalogue_metrics,
    main_k,
)
from llm_i2i.reporting.tables import LEGEND, Cell, Table, difference_cell, table
from llm_i2i.reporting.words import (
    MINUS,
    first_upper,
    metric_name,
    model_name,
    percent,
    run_name,
    slice_meaning,
    slice_name,
)
from llm_i2i.schema import OVERALL, SLICES

SHOWN_KS = 3  # cut-offs in the main table; the others are in the metrics files and the summary
_CATALOGUE_NAMES = {
    "coverage": "Coverage",
    "tail_exposure": "Tail share",
    "gini": "Gini",
    "average_popularity": "Popularity",
    "reachable_share": "Reachable",
    "reachable_share_tail": "Reachable, tail",
    "reachable_share_long_tail": "Reachable, the paper's long tail",
}


def _runs(inputs: ReportInputs) -> list[Run]:
    return [(model, arm) for model in inputs.models for arm in inputs.arms if (model, arm) in inputs.metrics]


def _value_cell(results: Results, run: Run, key: tuple[str, str]) -> Cell | None:
    """Value of a run, with its difference to the baseline and the interval where there is one."""
    value = results.means[run].get(key)
    return None if value is None else difference_cell(results.differences.get(run, {}).get(key), value=value)


def _columns(results: Results, slices: list[str]) -> list[tuple[str, str]]:
    return [(f"{first_upper(slice_name(name))} ({results.n_users[name]:,})", ".4f") for name in slices]


def main_table(inputs: ReportInputs, results: Results) -> Table:
    """Model x arm: Recall and NDCG at every cut-off, overall and on the tail, with differences."""
    metrics = [f"{name}@{k}" for name in METRICS for k in inputs.params.evaluate.ks[:SHOWN_KS]]
    return table(
        "Test metrics by model and arm. Under each value: paired difference to arm "
        f"{BASELINE_ARM} of the same model with its 95 % bootstrap interval; {LEGEND}. "
        f"No interval is given for fewer than {MIN_USERS} test users.",
        [("Model, arm", ""), *((metric_name(metric), ".4f") for metric in metrics)],
        {
            f"{slice_meaning(part, inputs.params.tag)}: {results.n_users[part]:,} test users": [
                (run_name(*run), *(_value_cell(results, run, (part, metric)) for metric in metrics))
                for run in _runs(inputs)
            ]
            for part in HEADLINES
            if results.n_users[part]
        },
        wide=True,
        sticky=True,
    )


def bucket_table(inputs: ReportInputs, results: Results) -> Table:
    """Model x arm by bucket of the test target, at the cut-off of the verdict."""
    names = [name for name in SLICES if name != OVERALL and results.n_users[name]]
    empty = [name for name in schema.BUCKETS if not results.n_users[name]]
    missing = f" No test target is in bucket {' or '.join(empty)}." if empty else ""
    meanings = "; ".join(slice_meaning(name, inputs.params.tag) for name in names)
    metrics = [f"{name}@{main_k(inputs.params.evaluate.ks)}" for name in METRICS]
    return table(
        f"By bucket of the test target, with differences to arm {BASELINE_ARM} as above. {meanings}. The paper's "
        "long tail is another division of the same items: it counts a share of them, the tail counts interactions."
        f"{missing}",
        [("Model, arm", ""), *_columns(results, names)],
        {
            metric_name(metric): [
                (run_name(*run), *(_value_cell(results, run, (part, metric)) for part in names))
                for run in _runs(inputs)
            ]
            for metric in metrics
        },
        wide=True,
        sticky=True,
    )


def control_table(inputs: ReportInputs, results: Results) -> Table | None:
    """LLM arms against the control arms that add as many pairs per user; None if there is no such pair."""
    if not results.against_controls:
        return None
    names = [name for name in SLICES if results.n_users[name] >= MIN_USERS]

    def label(*arms: str) -> str:
        shown = [f"{arm} ({int(inputs.kept[arm].get('synthetic_kept', 0)):,} pairs)" for arm in arms]
        return f" {MINUS} ".join(shown)

    return table(
        f"{metric_name(results.main_metric)} with the LLM's pairs less that with as many pairs per user from a cheap "
        "recommender: what the LLM adds beyond any augmentation. The pairs of an arm NAME_filtered went through the "
        "discriminator as well. Paired differences with 95 % bootstrap intervals.",
        [("Arms", ""), *_columns(results, names)],
        {
            model_name(model): [
                (
                    label(arm, control),
                    *(difference_cell(found.get((name, results.main_metric))) for name in names),
                )
                for (of_model, arm, control), found in results.against_controls.items()
                if of_model == model
            ]
            for model in inputs.models
        },
        wide=True,
        sticky=True,
    )


def _catalogue_text(name: str, value: float | None) -> str | None:
    if value is None:
        return None
    if name.startswith(("coverage", "tail_exposure", "reachable")):
        return percent(value)
    return f"{value:.3f}" if name.startswith("gini") else f"{value:,.1f}"


def catalogue_table(inputs: ReportInputs) -> Table:
    """Coverage, concentration and reachable share by model and arm."""
    runs = _runs(inputs)
    found = {run: catalogue_metrics(inputs.metrics[run], main_k(inputs.params.evaluate.ks)) for run in runs}
    names = sorted(
        {name for metrics in found.values() for name in metrics},
        key=lambda name: (CATALOGUE_METRICS.index(name.partition("@")[0]), name),
    )
    parts = [name.partition("@") for name in names]
    return table(
        "The whole catalogue. Reachable: test targets that get any score at all, the ceiling of every "
        "recall above. Coverage: items recommended to anyone. Tail share: recommended places that hold a tail "
        "item. Gini: 0 = all items equally often, 1 = one item only. Popularity: mean training interactions of "
        "a recommended item.",
        [("Model, arm", ""), *((_CATALOGUE_NAMES[base] + at + k, ".3f") for base, at, k in parts)],
        [(run_name(*run), *(_catalogue_text(name, found[run].get(name)) for name in names)) for run in runs],
        wide=True,
        sticky=True,
    )
