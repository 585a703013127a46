"""What a declared experiment shows: one row per point, model and arm, with paired differences and intervals."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from llm_i2i import schema
from llm_i2i.errors import ArtifactError
from llm_i2i.evaluation.experiments import Experiment
from llm_i2i.evaluation.metrics import per_user_metric
from llm_i2i.evaluation.paired import Measured, PairedDifference, in_slice
from llm_i2i.reporting.collect import Json, Run
from llm_i2i.reporting.results import MIN_USERS
from llm_i2i.reporting.words import DECIMALS, written

EVERY_POINT = "every point"
COLUMNS = ("point", "model", "arm", "seeds", "synthetic_kept", "tail_kept", "slice", "metric", "n_users", "value",
           "against", "difference", "low", "high", "outcome")  # fmt: skip
PER_USER_COLUMNS = {**schema.PER_USER, "model": "str", "arm": "str", "is_long_tail": "bool"}
Key = tuple[str, str, str]  # (point, model, arm)


@dataclass(frozen=True)
class PointResult:
    """What one point measured."""

    label: str  # The point
    seed: int  # Its seed
    # Content of reports/metrics/MODEL-ARM.json by (model, arm); empty if it failed
    metrics: Mapping[Run, Json]
    fused: Mapping[str, Json]  # Kept counts by arm
    # Per-user ranks of all its runs (`PER_USER_COLUMNS`); None if it failed
    per_user: pd.DataFrame | None = None
    judge: Json = field(default_factory=dict)  # Content of judged/judge.json: {} where nothing was learned
    error: str = ""  # Why it failed, else ""


def evaluate_experiment(experiment: Experiment, points: Sequence[PointResult], *, resamples: int, seed: int) -> Json:
    """Turn the ranks of every point, failed ones too, into rows, differences and intervals.

    Args:
        experiment: The declaration.
        points: Every point that was run, failed ones too.
        resamples: Bootstrap resamples.
        seed: Seed of the bootstrap: the same points give the same numbers.

    Returns:
        What reports and benchmarks read: name, question, seeds, protocol hash by seed and model (a tuned model brings
        a query of its own), why points failed, and rows: one per point (`EVERY_POINT` where an arm is the same in all
        of them), model, arm, slice, metric and comparison (`COLUMNS`); and judge: how well the judge and what it is
        made of order a user's proposals, by point (`pooled_auc`).

    Raises:
        ArtifactError: Points of one seed were measured under different protocols or on different users.
    """
    protocols = _protocols(points)
    ranks: dict[Key, dict[int, pd.DataFrame]] = {}
    for point in points:
        if point.per_user is not None:
            for (model, arm), table in point.per_user.groupby(["model", "arm"], sort=False):
                by_seed = ranks.setdefault((point.label, str(model), str(arm)), {})
                by_seed[point.seed] = table.sort_values(schema.USER_ID, ignore_index=True)
    seeds = sorted({point.seed for point in points})
    lines = {}
    for key, tables in ranks.items():
        fused = [point.fused.get(key[2], {}) for point in _of_run(key, points)]
        kept = [report.get("synthetic_kept", 0) for report in fused]
        tail = [report.get("by_bucket", {}).get(schema.TAIL, {}).get("synthetic", 0) for report in fused]
        counts = {"synthetic_kept": kept, "tail_kept": tail}
        base = {"seeds": len(seeds)} | {name: round(float(np.mean(found)), 1) for name, found in counts.items()}
        pairs = {}
        for name, other in _baselines(experiment, key):
            # Their protocols have been compared by `_protocols`.
            common = sorted(tables.keys() & ranks.get(other, {}).keys())
            if common:
                sides = ({of: ranks[run][of] for of in common} for run in (key, other))
                pairs[name] = PairedDifference(*(Measured({}, side) for side in sides))
        found = _lines(experiment, tables, pairs, resamples=resamples, seed=seed)
        lines[key] = [base | line for line in found]
    return {
        "name": experiment.name,
        "question": experiment.question,
        "seeds": seeds,
        "protocol_hash": protocols,
        "failures": {point.label: point.error for point in points if point.error},
        "rows": _once(lines, points),
        "judge": _judges(points),
    }


def _judges(points: Sequence[PointResult]) -> Json:
    """`pooled_auc` of every point at which a judge was learned."""
    learned: dict[str, list[Json]] = {}
    for point in points:
        if point.judge:
            learned.setdefault(point.label, []).append(point.judge["auc_within_user"])
    return {label: pooled_auc(found) for label, found in learned.items()}


def pooled_auc(by_seed: Sequence[Json]) -> Json:
    """AUC within a user's proposals over the users of all seeds.

    Args:
        by_seed: Per seed, by order and slice: auc, auc_low, auc_high (95 % interval) and n_users.

    Returns:
        The same over all seeds: means weighted by users. The half width is that of a mean of independent groups, the
        root of the weighted half widths' sum of squares, since each seed asks other users and trains models of its own.
    """
    pooled: Json = {}
    for order in by_seed[0]:
        for part in dict.fromkeys(part for found in by_seed for part in found[order]):
            groups = [found[order][part] for found in by_seed if part in found[order]]
            users = np.array([group["n_users"] for group in groups])
            share = users / users.sum()
            half = np.array([(group["auc_high"] - group["auc_low"]) / 2 for group in groups])
            auc, width = (float(share @ [group["auc"] for group in groups]), float(np.hypot.reduce(share * half)))
            pooled.setdefault(order, {})[part] = {
                "auc": round(auc, DECIMALS),
                "auc_low": round(auc - width, DECIMALS),
                "auc_high": round(auc + width, DECIMALS),
                "n_users": int(users.sum()),
            }
    return pooled


def _baselines(experiment: Experiment, key: Key) -> Iterator[tuple[str, Key]]:
    """What a run is compared with, and the name of the comparison."""
    label, model, arm = key
    for baseline in experiment.baselines:
        if arm != baseline:
            yield f"arm {baseline}", (label, model, baseline)
    if experiment.reference and label != experiment.reference:
        yield f"point {experiment.reference}", (experiment.reference, model, arm)


def _protocols(points: Sequence[PointResult]) -> dict[str, dict[str, str]]:
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
                problem = f"another protocol or other test users than {first[2]}"
                fix = "leave parameters of the protocol out of the grid"
                raise ArtifactError(name, problem, "one protocol in all points of a seed and model", fix)
    protocols: dict[str, dict[str, str]] = {}
    for (seed, model), marks_of in sorted(found.items()):
        protocols.setdefault(str(seed), {})[model] = marks_of[0]
    return protocols


def _of_run(key: Key, points: Sequence[PointResult]) -> list[PointResult]:
    """The points, one per seed, that measured a run."""
    return [point for point in points if point.label == key[0] and key[1:] in point.metrics]


def _catalogue(key: Key, points: Sequence[PointResult]) -> list[Json]:
    """The catalogue-wide metrics of a run, seed by seed."""
    found = [point.metrics[key[1:]] for point in _of_run(key, points)]
    return [{name: value for name, value in metrics.items() if isinstance(value, float)} for metrics in found]


def _lines(
    experiment: Experiment, tables: Mapping[int, pd.DataFrame], pairs: Mapping[str, PairedDifference], *,
    resamples: int, seed: int,
) -> Iterator[Json]:  # fmt: skip
    """Value and differences of one run by slice and metric, mean over users and seeds."""
    for part in experiment.slices:
        inside = [table.loc[in_slice(table, part), "rank"].to_numpy() for _, table in sorted(tables.items())]
        if not all(len(ranks) for ranks in inside):
            continue
        for metric in experiment.metrics:
            value = float(np.mean([per_user_metric(metric, ranks).mean() for ranks in inside]))
            n_users = int(np.mean([len(ranks) for ranks in inside]))
            cell = {"slice": part, "metric": metric, "n_users": n_users, "value": round(value, DECIMALS)}
            yield cell | {"against": ""}
            for against, pair in pairs.items():
                if pair.n_users(part) >= MIN_USERS:
                    found = written(pair.interval(metric, part, resamples=resamples, seed=seed))
                    yield cell | {"against": against} | found


def _once(lines: Mapping[Key, list[Json]], points: Sequence[PointResult]) -> list[Json]:
    """Show a run that is the same at every point, such as the arm `real` of a threshold sweep, once and first."""
    labels = dict.fromkeys(label for label, _, _ in lines)
    once: list[Json] = []
    alike = set()
    for run in dict.fromkeys(key[1:] for key in lines):
        keys = [(label, *run) for label in labels if (label, *run) in lines]
        without = [[line for line in lines[key] if not line["against"].startswith("point ")] for key in keys]
        same = all(
            shown == without[0] and _catalogue(key, points) == _catalogue(keys[0], points)
            for key, shown in zip(keys, without, strict=True)
        )
        if same and len(keys) == len(labels) > 1:
            alike.add(run)
            once += [{"point": EVERY_POINT, "model": run[0], "arm": run[1]} | line for line in without[0]]
    others = [(key, line) for key, found in lines.items() if key[1:] not in alike for line in found]
    return once + [dict(zip(("point", "model", "arm"), key, strict=True)) | line for key, line in others]
