"""What a declared experiment shows: one row a point, model and arm, with paired differences and intervals."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from llm_i2i import schema
from llm_i2i.errors import ArtifactError
from llm_i2i.evaluation.bootstrap import Interval, paired_bootstrap, pooled_difference
from llm_i2i.evaluation.experiments import Experiment
from llm_i2i.evaluation.metrics import per_user_metric
from llm_i2i.reporting.collect import Json, Run
from llm_i2i.reporting.results import DECIMALS, MIN_USERS, outcome_of

EVERY_POINT = "every point"
PER_USER_COLUMNS = {**schema.PER_USER, "model": "str", "arm": "str", "is_long_tail": "bool"}


@dataclass(frozen=True)
class PointResult:
    """What one point measured.

    Attributes:
        label: The point.
        changed: Its overrides without those of every point.
        seed: Its seed.
        metrics: Content of reports/metrics/MODEL-ARM.json by (model, arm); empty if it failed.
        fused: Kept counts by arm.
        per_user: Per-user ranks of all its runs (`PER_USER_COLUMNS`); None if it failed.
        error: Why it failed, else "".
    """

    label: str
    changed: Mapping[str, Any]
    seed: int
    metrics: Mapping[Run, Json]
    fused: Mapping[str, Json]
    per_user: pd.DataFrame | None = None
    error: str = ""


@dataclass(frozen=True)
class Row:
    """One point, model and arm, all seeds together.

    Attributes:
        point: Label of the point, or `EVERY_POINT` where an arm is the same in all of them.
        model: I2I model.
        arm: Arm.
        synthetic_kept: Synthetic rows it trained on, mean over seeds.
        means: Mean over users and seeds by (slice, metric); absent if the slice has no user.
        n_users: Test users by slice.
        differences: By what it is compared with ("arm real", "point X"), then (slice, metric).
        catalogue: Catalogue-wide metrics, mean over seeds.
    """

    point: str
    model: str
    arm: str
    synthetic_kept: float
    means: dict[tuple[str, str], float]
    n_users: dict[str, int]
    differences: dict[str, dict[tuple[str, str], Interval]] = field(default_factory=dict)
    catalogue: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class ExperimentResult:
    """A finished experiment.

    Attributes:
        experiment: Its declaration.
        rows: Every point, model and arm.
        seeds: Seeds that were run.
        protocols: Protocol hash by seed and model; a tuned model brings a query of its own.
        failures: Why a point failed, by its label.
    """

    experiment: Experiment
    rows: tuple[Row, ...]
    seeds: tuple[int, ...]
    protocols: dict[int, dict[str, str]]
    failures: dict[str, str]


def evaluate_experiment(
    experiment: Experiment, points: Sequence[PointResult], *, resamples: int, seed: int
) -> ExperimentResult:
    """Turn the points' per-user ranks into rows, differences and intervals.

    Args:
        experiment: The declaration.
        points: Every point that was run, failed ones too.
        resamples: Bootstrap resamples.
        seed: Seed of the bootstrap.

    Returns:
        The result; the same points give the same numbers.

    Raises:
        ArtifactError: Points of one seed were measured under different protocols or on different users.
    """
    protocols = _protocols(points)
    ranks = {
        (point.label, *run, point.seed): table
        for point in points
        if point.per_user is not None
        for run, table in _by_run(point.per_user)
    }
    seeds = sorted({point.seed for point in points})
    rows = []
    for label, model, arm in dict.fromkeys(key[:3] for key in ranks):
        tables = [ranks[label, model, arm, s] for s in seeds if (label, model, arm, s) in ranks]
        row = _row(experiment, (label, model, arm), tables, points)
        for name, key in _baselines(experiment, label, model, arm):
            others = {s: ranks[*key, s] for s in seeds if (*key, s) in ranks}
            ours = {s: ranks[label, model, arm, s] for s in others if (label, model, arm, s) in ranks}
            pairs = [(ours[s], others[s]) for s in ours]
            if pairs:
                row.differences[name] = _differences(experiment, pairs, resamples=resamples, seed=seed)
        rows.append(row)
    failures = {point.label: point.error for point in points if point.error}
    return ExperimentResult(experiment, tuple(_once(rows)), tuple(seeds), protocols, failures)


def _by_run(per_user: pd.DataFrame) -> Iterator[tuple[Run, pd.DataFrame]]:
    for (model, arm), table in per_user.groupby(["model", "arm"], sort=False):
        yield (str(model), str(arm)), table.sort_values(schema.USER_ID, ignore_index=True)


def _baselines(
    experiment: Experiment, label: str, model: str, arm: str
) -> Iterator[tuple[str, tuple[str, str, str]]]:
    """What a run is compared with: (name, (point, model, arm))."""
    for baseline in experiment.baselines:
        if arm != baseline:
            yield f"arm {baseline}", (label, model, baseline)
    if experiment.reference and label != experiment.reference:
        yield f"point {experiment.reference}", (experiment.reference, model, arm)


def _protocols(points: Sequence[PointResult]) -> dict[int, dict[str, str]]:
    """The protocol hash by seed and model.

    Raises:
        ArtifactError: Two points of one seed and model differ in it, or in their test users and targets.
    """
    found: dict[tuple[int, str], tuple[str, str, str]] = {}
    for point in points:
        for (model, arm), metrics in point.metrics.items():
            name = f"{point.label}, {model}, {arm}"
            marks = (str(metrics["protocol_hash"]), str(metrics.get("test_sha256")))
            first = found.setdefault((point.seed, model), (*marks, name))
            if first[:2] != marks:
                raise ArtifactError(
                    name,
                    f"another protocol or other test users than {first[2]}",
                    "one protocol in all points of a seed and model",
                    "leave parameters of the protocol out of the grid",
                )
    protocols: dict[int, dict[str, str]] = {}
    for (seed, model), marks_of in sorted(found.items()):
        protocols.setdefault(seed, {})[model] = marks_of[0]
    return protocols


def _mask(table: pd.DataFrame, name: str) -> npt.NDArray[np.bool_]:
    if name == "overall":
        return np.ones(len(table), dtype=np.bool_)
    if name == "long_tail":
        return table["is_long_tail"].to_numpy(dtype=np.bool_)
    return (table["bucket"] == name).to_numpy(dtype=np.bool_)


def _values(table: pd.DataFrame, metric: str) -> npt.NDArray[np.float64]:
    return per_user_metric(metric, table["rank"].to_numpy())


def _row(
    experiment: Experiment,
    key: tuple[str, str, str],
    tables: list[pd.DataFrame],
    points: Sequence[PointResult],
) -> Row:
    """Means of one point, model and arm."""
    label, model, arm = key
    means: dict[tuple[str, str], float] = {
        (name, metric): float(np.mean([_values(t, metric)[_mask(t, name)].mean() for t in tables]))
        for name in experiment.slices
        for metric in experiment.metrics
        if all(_mask(t, name).any() for t in tables)
    }
    ours = [point for point in points if point.label == label and (model, arm) in point.metrics]
    kept = [float(point.fused.get(arm, {}).get("synthetic_kept", 0)) for point in ours]
    numbers = [
        {
            name: float(value)
            for name, value in point.metrics[model, arm].items()
            if isinstance(value, float) and not isinstance(value, bool)
        }
        for point in ours
    ]
    catalogue = {name: float(np.mean([n[name] for n in numbers if name in n])) for name in numbers[0]}
    n_users: dict[str, int] = {
        name: int(np.mean([_mask(t, name).sum() for t in tables])) for name in experiment.slices
    }
    return Row(label, model, arm, float(np.mean(kept)), means, n_users, catalogue=catalogue)


def _differences(
    experiment: Experiment, pairs: list[tuple[pd.DataFrame, pd.DataFrame]], *, resamples: int, seed: int
) -> dict[tuple[str, str], Interval]:
    """Paired differences; users and seeds are resampled.

    The groups of items depend on the seed where their ties do: of a slice, the users that are in it under
    every seed count.
    """
    result: dict[tuple[str, str], Interval] = {}
    users = [ours[schema.USER_ID] for ours, _ in pairs]
    crossed = all(found.equals(users[0]) for found in users)
    for name in experiment.slices:
        masks = [_mask(ours, name) for ours, _ in pairs]
        if crossed:
            masks = [np.logical_and.reduce(masks)] * len(masks)
        if min(int(mask.sum()) for mask in masks) < MIN_USERS:
            continue
        for metric in experiment.metrics:
            vectors = [
                (_values(ours, metric) - _values(other, metric))[mask]
                for (ours, other), mask in zip(pairs, masks, strict=True)
            ]
            if crossed:
                result[name, metric] = pooled_difference(vectors, resamples=resamples, seed=seed)
            else:
                # Every seed tests a sample of users of its own: one larger sample.
                joined = np.concatenate(vectors)
                nothing = np.zeros_like(joined)
                result[name, metric] = paired_bootstrap(joined, nothing, resamples=resamples, seed=seed)
    return result


def _once(rows: list[Row]) -> list[Row]:
    """Show a run that is the same at every point, such as the arm `real` of a threshold sweep, once."""
    labels = list(dict.fromkeys(row.point for row in rows))
    merged: list[Row] = []
    done: set[Run] = set()
    for row in rows:
        same = [other for other in rows if (other.model, other.arm) == (row.model, row.arm)]
        alike = len(labels) > 1 and len(same) == len(labels) and all(_alike(other, row) for other in same)
        if not alike:
            merged.append(row)
        elif (row.model, row.arm) not in done:
            done.add((row.model, row.arm))
            differences = {k: v for k, v in row.differences.items() if not k.startswith("point ")}
            merged.append(Row(EVERY_POINT, row.model, row.arm, row.synthetic_kept, row.means, row.n_users,
                              differences, row.catalogue))  # fmt: skip
    return sorted(merged, key=lambda row: row.point != EVERY_POINT)


def _alike(one: Row, other: Row) -> bool:
    """Whether two rows are the same run: same values, volume and differences to arms."""
    arms = [{k: v for k, v in row.differences.items() if k.startswith("arm ")} for row in (one, other)]
    same_catalogue = one.catalogue == other.catalogue
    return (
        same_catalogue
        and one.means == other.means
        and one.synthetic_kept == other.synthetic_kept
        and arms[0] == arms[1]
    )


def tidy(result: ExperimentResult) -> pd.DataFrame:
    """One line a point, model, arm, slice, metric and comparison; `against` is empty on lines of values.

    Returns:
        point, model, arm, seeds, synthetic_kept, slice, metric, n_users, value, against, difference, low,
        high, outcome.
    """
    lines = []
    for row in result.rows:
        base = {
            "point": row.point,
            "model": row.model,
            "arm": row.arm,
            "seeds": len(result.seeds),
            "synthetic_kept": round(row.synthetic_kept, 1),
        }
        for (name, metric), value in row.means.items():
            cell = {"slice": name, "metric": metric, "n_users": row.n_users[name], "value": value}
            lines.append(base | cell | {"against": ""})
            for against, by_key in row.differences.items():
                if (name, metric) in by_key:
                    interval = by_key[name, metric]
                    lines.append(base | cell | {"against": against, "difference": interval.mean,
                                 "low": interval.low, "high": interval.high,
                                 "outcome": outcome_of(interval)})  # fmt: skip
    columns = ["point", "model", "arm", "seeds", "synthetic_kept", "slice", "metric", "n_users", "value",
               "against", "difference", "low", "high", "outcome"]  # fmt: skip
    return pd.DataFrame(lines, columns=columns).round(DECIMALS)
