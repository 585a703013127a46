"""Numbers of the report: values, paired differences to the arm `real`, verdicts, summary."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from llm_i2i import schema
from llm_i2i.evaluation.bootstrap import Interval, paired_bootstrap
from llm_i2i.evaluation.metrics import per_user_metric
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
        against_controls: By (model, LLM arm, control arm) and (slice, main metric): paired difference of the
            LLM arm to the control arm of equal volume.
    """

    means: dict[Run, dict[Key, float]]
    differences: dict[Run, dict[Key, Interval]]
    n_users: dict[str, int]
    main_metric: str
    verdicts: dict[str, tuple[Verdict, ...]]
    against_controls: dict[tuple[str, str, str], dict[Key, Interval]] = field(default_factory=dict)


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
        (slice_name, f"{name}@{k}"): per_user_metric(f"{name}@{k}", ranks[masks[slice_name]])
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


def control_pairs(arms: tuple[str, ...]) -> list[tuple[str, str]]:
    """The (LLM arm, control arm) that keep as many pairs a user, of the arms that were run."""
    pairs = [(AUGMENTED_ARM, f"{name}_filtered") for name in schema.CONTROLS]
    pairs += [("no_discriminator", name) for name in schema.CONTROLS]
    return [pair for pair in pairs if set(pair) <= set(arms)]


def _differences(
    inputs: ReportInputs,
    candidate: dict[Key, npt.NDArray[np.float64]],
    baseline: dict[Key, npt.NDArray[np.float64]],
) -> dict[Key, Interval]:
    """Paired differences of slices with enough users."""
    return {
        key: paired_bootstrap(
            per_user,
            baseline[key],
            resamples=inputs.params.report.bootstrap_resamples,
            seed=inputs.params.seed,
        )
        for key, per_user in candidate.items()
        if len(per_user) >= MIN_USERS
    }


def compute_results(inputs: ReportInputs) -> Results:
    """Compute every value, difference and verdict of the report.

    Args:
        inputs: What `collect` read.

    Returns:
        The results; the same inputs give the same numbers.
    """
    users = {run: _user_values(inputs, run) for run in inputs.metrics}
    main_metric = f"recall@{main_k(inputs.params.evaluate.ks)}"
    means = {
        run: {key: float(per_user.mean()) for key, per_user in by_key.items()}
        for run, by_key in users.items()
    }
    differences: dict[Run, dict[Key, Interval]] = {}
    for (model, arm), by_key in users.items():
        baseline = users.get((model, BASELINE_ARM))
        if arm == BASELINE_ARM or baseline is None:
            continue
        differences[model, arm] = _differences(inputs, by_key, baseline)
    against = {}
    for model in inputs.models:
        for llm_arm, control in control_pairs(inputs.arms):
            both = _differences(inputs, users[model, llm_arm], users[model, control])
            against[model, llm_arm, control] = {
                key: found for key, found in both.items() if key[1] == main_metric
            }
    masks = slice_masks(next(iter(inputs.per_user.values())), inputs.items)
    results = Results(
        means=means,
        differences=differences,
        n_users={name: int(mask.sum()) for name, mask in masks.items()},
        main_metric=main_metric,
        verdicts={},
        against_controls=against,
    )
    results.verdicts.update(_verdicts(results, inputs))
    return results


def catalogue_metrics(metrics: dict[str, Any], k: int) -> dict[str, float]:
    """Catalogue-wide metrics of one run at cut-off k, as its JSON has them, in the order of `CATALOGUE_METRICS`."""
    return {
        name: float(metrics[name])
        for wanted in CATALOGUE_METRICS
        for name in (wanted, f"{wanted}@{k}")
        if isinstance(metrics.get(name), int | float)
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
        {"protocol_hash", "protocol_hashes": {model: hash}, "against_controls": {model: {"ARM - CONTROL":
        {metric: {"mean", "low", "high"}}}}, "results": {model: {arm: {metric: value}}},
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
            main |= catalogue_metrics(inputs.metrics[run], main_k(inputs.params.evaluate.ks))
            values.setdefault(model, {})[arm] = {name: round(value, DECIMALS) for name, value in main.items()}
            if run in results.differences:
                differences.setdefault(model, {})[arm] = _rounded(results.differences[run])
    against: dict[str, Any] = {}
    for (model, arm, control), found in results.against_controls.items():
        against.setdefault(model, {})[f"{arm} - {control}"] = _rounded(found)
    return {
        "protocol_hash": inputs.protocol_hash,
        "protocol_hashes": inputs.protocol_hashes,
        "results": values,
        "differences": differences,
        "against_controls": against,
    }


def _rounded(differences: dict[Key, Interval]) -> dict[str, dict[str, float]]:
    """Differences of the main slices, ready for the summary."""
    return {
        _flat_name(key): {
            part: round(float(getattr(interval, part)), DECIMALS) for part in ("mean", "low", "high")
        }
        for key, interval in differences.items()
        if key[0] in MAIN_SLICES
    }
