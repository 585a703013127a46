"""Numbers of the report: values, paired differences to the arm `real`, verdicts, summary."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from llm_i2i import schema
from llm_i2i.evaluation.bootstrap import Interval, paired_bootstrap
from llm_i2i.reporting.collect import BASELINE_ARM, ReportInputs, Run

OVERALL = "overall"
LONG_TAIL = "long_tail"
MAIN_SLICES = (OVERALL, "tail", LONG_TAIL)
SLICES = (OVERALL, *schema.BUCKETS, LONG_TAIL)
AUGMENTED_ARM = "llm_i2i"
METRICS = ("recall", "ndcg")
MIN_USERS = 20  # below it a percentile interval of rare hits means nothing, and none is given
CATALOGUE_METRICS = (
    "coverage",
    "tail_exposure",
    "gini",
    "average_popularity",
    "reachable_share",
    "reachable_share_tail",
    "reachable_share_long_tail",
)
DECIMALS = 6  # of the summary: below it, numbers differ between machines by the order of a sum
Key = tuple[str, str]  # (slice, metric@k)


@dataclass(frozen=True)
class Verdict:
    """What one model's augmentation did, in the one metric chosen beforehand.

    Attributes:
        model: The I2I model.
        arm: The augmented arm, empty if none was evaluated.
        outcome: "better", "worse", "none" (no difference shown) or "unknown" (nothing to compare).
        slice_name: Test targets it is about, one of `SLICES`.
        metric: Metric, such as "recall@10".
        value: Value of the augmented arm, NaN if unknown.
        baseline: Value of the arm `real`, NaN if unknown.
        difference: Paired difference with its 95 % interval, None if unknown.
        n_users: Test users compared.
    """

    model: str
    arm: str
    outcome: str
    slice_name: str
    metric: str
    value: float
    baseline: float
    difference: Interval | None
    n_users: int


@dataclass(frozen=True)
class Results:
    """Every number of the tables.

    Attributes:
        means: By run and (slice, metric): mean over the test users of the slice; absent if it has none.
        differences: By run and (slice, metric): paired difference to the arm `real` of the same model;
            absent if the slice has fewer than `MIN_USERS` users.
        n_users: Test users by slice.
        main_metric: The metric of the verdict.
        verdicts: Per model, one for all targets and one for long-tail targets.
    """

    means: dict[Run, dict[Key, float]]
    differences: dict[Run, dict[Key, Interval]]
    n_users: dict[str, int]
    main_metric: str
    verdicts: dict[str, tuple[Verdict, ...]]


def per_user_metric(ranks: npt.NDArray[np.integer[Any]], *, name: str, k: int) -> npt.NDArray[np.float64]:
    """Metric of each user with one test target.

    Args:
        ranks: Rank of the target, int (n_users,), 1-based, 0 = not ranked.
        name: "recall" (1 if the target is in the top k) or "ndcg" (1 / log2(rank + 1) if it is).
        k: Cut-off, >= 1.

    Returns:
        float64 (n_users,), in [0, 1].
    """
    hit = (ranks > 0) & (ranks <= k)
    if name == "recall":
        return hit.astype(np.float64)
    return np.where(hit, 1.0 / np.log2(np.maximum(ranks, 1) + 1.0), 0.0)


def main_k(ks: tuple[int, ...]) -> int:
    """Cut-off of the verdict: the largest up to 10, else the smallest."""
    return max((k for k in ks if k <= 10), default=min(ks))


def outcome_of(difference: Interval) -> str:
    """Say "better" or "worse" if the whole interval lies on one side of 0, else "none"."""
    if difference.low > 0.0:
        return "better"
    return "worse" if difference.high < 0.0 else "none"


def slice_masks(per_user: pd.DataFrame, items: pd.DataFrame) -> dict[str, npt.NDArray[np.bool_]]:
    """Which test users belong to each slice, by their target.

    Args:
        per_user: schema.PER_USER.
        items: schema.ITEMS.

    Returns:
        By slice: bool (n_users,).
    """
    bucket = per_user["bucket"].to_numpy()
    long_tail = per_user[schema.ITEM_ID].isin(items.loc[items["is_long_tail"], schema.ITEM_ID]).to_numpy()
    masks = {OVERALL: np.ones(len(per_user), dtype=np.bool_), LONG_TAIL: long_tail}
    return masks | {name: bucket == name for name in schema.BUCKETS}


def _metric_ks(slice_name: str, ks: tuple[int, ...]) -> tuple[int, ...]:
    """All cut-offs for the slices of the main table, the verdict's for the others."""
    return ks if slice_name in MAIN_SLICES else (main_k(ks),)


def _user_values(inputs: ReportInputs, run: Run) -> dict[Key, npt.NDArray[np.float64]]:
    """Per-user values by (slice, metric); slices without users are left out."""
    table = inputs.per_user[run]
    ranks = table["rank"].to_numpy()
    masks = slice_masks(table, inputs.items)
    return {
        (slice_name, f"{name}@{k}"): per_user_metric(ranks[masks[slice_name]], name=name, k=k)
        for slice_name in SLICES
        if masks[slice_name].any()
        for name in METRICS
        for k in _metric_ks(slice_name, inputs.params.evaluate.ks)
    }


def _verdict(results: Results, model: str, arm: str, slice_name: str) -> Verdict:
    key = (slice_name, results.main_metric)
    difference = results.differences.get((model, arm), {}).get(key)
    return Verdict(
        model=model,
        arm=arm,
        outcome="unknown" if difference is None else outcome_of(difference),
        slice_name=slice_name,
        metric=results.main_metric,
        value=results.means.get((model, arm), {}).get(key, float("nan")),
        baseline=results.means.get((model, BASELINE_ARM), {}).get(key, float("nan")),
        difference=difference,
        n_users=results.n_users[slice_name],
    )


def _verdicts(results: Results, inputs: ReportInputs) -> dict[str, tuple[Verdict, ...]]:
    """One verdict a model on all targets and one on the long tail, for `llm_i2i` or the first other arm."""
    verdicts = {}
    for model in inputs.models:
        augmented = [arm for arm in inputs.arms if arm != BASELINE_ARM and (model, arm) in results.means]
        arm = AUGMENTED_ARM if AUGMENTED_ARM in augmented else next(iter(augmented), "")
        verdicts[model] = tuple(_verdict(results, model, arm, name) for name in (OVERALL, LONG_TAIL))
    return verdicts


def compute_results(inputs: ReportInputs) -> Results:
    """Compute every value, difference and verdict of the report.

    Args:
        inputs: What `collect` read.

    Returns:
        The results; the same inputs give the same numbers.
    """
    users = {run: _user_values(inputs, run) for run in inputs.metrics}
    means = {
        run: {key: float(per_user.mean()) for key, per_user in by_key.items()}
        for run, by_key in users.items()
    }
    differences: dict[Run, dict[Key, Interval]] = {}
    for (model, arm), by_key in users.items():
        baseline = users.get((model, BASELINE_ARM))
        if arm == BASELINE_ARM or baseline is None:
            continue
        differences[model, arm] = {
            key: paired_bootstrap(
                per_user,
                baseline[key],
                resamples=inputs.params.report.bootstrap_resamples,
                seed=inputs.params.seed,
            )
            for key, per_user in by_key.items()
            if len(per_user) >= MIN_USERS
        }
    masks = slice_masks(next(iter(inputs.per_user.values())), inputs.items)
    results = Results(
        means=means,
        differences=differences,
        n_users={name: int(mask.sum()) for name, mask in masks.items()},
        main_metric=f"recall@{main_k(inputs.params.evaluate.ks)}",
        verdicts={},
    )
    results.verdicts.update(_verdicts(results, inputs))
    return results


def catalogue_metrics(metrics: dict[str, Any]) -> dict[str, float]:
    """Catalogue-wide metrics of one run, as they stand in its JSON, in the order of `CATALOGUE_METRICS`."""
    return {
        name: float(value)
        for wanted in CATALOGUE_METRICS
        for name, value in metrics.items()
        if name.partition("@")[0] == wanted and isinstance(value, int | float)
    }


def _flat_name(key: Key) -> str:
    slice_name, metric = key
    return metric if slice_name == OVERALL else f"{slice_name}_{metric}"


def summarize(inputs: ReportInputs, results: Results) -> dict[str, Any]:
    """The deterministic summary: no time, no revision, no machine.

    Args:
        inputs: What `collect` read.
        results: What `compute_results` made of it.

    Returns:
        {"protocol_hash", "results": {model: {arm: {metric: value}}},
        "differences": {model: {arm: {metric: {"mean", "low", "high"}}}}}; metrics of the tail and the
        long tail carry the prefix `tail_` or `long_tail_`.
    """
    values: dict[str, Any] = {}
    differences: dict[str, Any] = {}
    for model in inputs.models:
        for arm in inputs.arms:
            run = (model, arm)
            if run not in results.means:
                continue
            main = {
                _flat_name(key): value for key, value in results.means[run].items() if key[0] in MAIN_SLICES
            }
            main |= catalogue_metrics(inputs.metrics[run])
            values.setdefault(model, {})[arm] = {name: round(value, DECIMALS) for name, value in main.items()}
            if run in results.differences:
                differences.setdefault(model, {})[arm] = {
                    _flat_name(key): {
                        part: round(float(getattr(interval, part)), DECIMALS)
                        for part in ("mean", "low", "high")
                    }
                    for key, interval in results.differences[run].items()
                    if key[0] in MAIN_SLICES
                }
    return {"protocol_hash": inputs.protocol_hash, "results": values, "differences": differences}
