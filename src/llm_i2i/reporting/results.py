"""Numbers of the report: values, paired differences to the arm `real` and to the controls, summary."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from llm_i2i import schema
from llm_i2i.evaluation.bootstrap import Interval
from llm_i2i.evaluation.metrics import per_user_metric
from llm_i2i.evaluation.paired import Measured, PairedDifference, in_slice
from llm_i2i.reporting.collect import BASELINE_ARM, ReportInputs, Run
from llm_i2i.reporting.words import DECIMALS, texts
from llm_i2i.schema import LONG_TAIL, OVERALL, SLICES, TAIL

MAIN_SLICES = (OVERALL, TAIL, LONG_TAIL)  # measured at every cut-off and in the summary
HEADLINES = (OVERALL, TAIL)  # what cards and main table are about
AUGMENTED_ARM = "llm_i2i"
CONTROL_ARMS = tuple(name + end for name in schema.CONTROLS for end in ("", "_filtered"))
METRICS = ("recall", "ndcg")
MIN_USERS = 20  # below it a percentile interval of rare hits means nothing, and none is given
Key = tuple[str, str]  # (slice, metric@k)


@dataclass(frozen=True)
class Results:
    """Every number of the tables."""

    # By run and (slice, metric): mean over the test users of the slice; absent if it has none
    means: dict[Run, dict[Key, float]]
    # By run and (slice, metric): paired difference to the arm `real` of the same model; absent if the slice has fewer
    # than `MIN_USERS` users
    differences: dict[Run, dict[Key, Interval]]
    n_users: dict[str, int]  # Test users by slice
    main_metric: str  # The metric of the verdict, chosen beforehand, such as "recall@10"
    arm: str  # The augmented arm that verdicts are about, empty if none was evaluated
    # By (model, LLM arm, control arm) and (slice, main metric): paired difference of the LLM arm to the control arm
    # of equal volume
    against_controls: dict[tuple[str, str, str], dict[Key, Interval]] = field(default_factory=dict)


def main_k(ks: tuple[int, ...]) -> int:
    """Cut-off of the verdict: the largest up to 10, else the smallest."""
    return max((k for k in ks if k <= 10), default=min(ks))


def main_arm(arms: tuple[str, ...]) -> str:
    """The arm of the generator's data that a page is about: `llm_i2i`, else the first such arm, else ""."""
    generated = [arm for arm in arms if arm not in (BASELINE_ARM, *CONTROL_ARMS)]
    return AUGMENTED_ARM if AUGMENTED_ARM in generated else next(iter(generated), "")


def control_pairs(arms: tuple[str, ...], control_volume: str) -> list[tuple[str, str]]:
    """The (LLM arm, control arm) that keep as many pairs per user, of the arms that were run."""
    pairs = [(AUGMENTED_ARM, f"{name}_filtered") for name in schema.CONTROLS]
    pairs += [(control_volume, name) for name in schema.CONTROLS]
    return [pair for pair in pairs if set(pair) <= set(arms)]


def _keys(n_users: Mapping[str, int], ks: tuple[int, ...]) -> list[Key]:
    """Slices with users and their metrics: all cut-offs for the main slices, the verdict's for the others."""
    return [
        (part, f"{name}@{k}")
        for part in SLICES
        if n_users[part]
        for name in METRICS
        for k in (ks if part in MAIN_SLICES else (main_k(ks),))
    ]


def compute_results(inputs: ReportInputs) -> Results:
    """Compute every value and difference of the report; the same inputs give the same numbers."""
    params = inputs.params
    first = next(iter(inputs.per_user.values()))
    n_users = {part: int(in_slice(first, part).sum()) for part in SLICES}
    keys = _keys(n_users, params.evaluate.ks)
    main_metric = f"recall@{main_k(params.evaluate.ks)}"

    def value(run: Run, key: Key) -> float:
        table, (part, metric) = inputs.per_user[run], key
        return float(per_user_metric(metric, table["rank"].to_numpy()[in_slice(table, part)]).mean())

    def against(model: str, arm: str, other: str, metrics: set[str]) -> dict[Key, Interval]:
        # Protocols were compared when the metrics were read; a tuned model's query is its own in every arm.
        pair = PairedDifference(*(Measured.once(inputs.per_user[model, name]) for name in (arm, other)))
        resamples = params.report.bootstrap_resamples
        return {
            (part, metric): pair.interval(metric, part, resamples=resamples, seed=params.seed)
            for part, metric in keys
            if metric in metrics and n_users[part] >= MIN_USERS
        }

    every = {metric for _, metric in keys}
    differences = {
        (model, arm): against(model, arm, BASELINE_ARM, every)
        for model, arm in inputs.per_user
        if arm != BASELINE_ARM and (model, BASELINE_ARM) in inputs.per_user
    }
    against_controls = {
        (model, *pair): against(model, *pair, {main_metric})
        for model in inputs.models
        for pair in control_pairs(inputs.arms, params.fuse.control_volume)
    }
    means = {run: {key: value(run, key) for key in keys} for run in inputs.per_user}
    arm = main_arm(inputs.arms) or next((arm for arm in inputs.arms if arm != BASELINE_ARM), "")
    return Results(means, differences, n_users, main_metric, arm, against_controls)


def catalogue_metrics(metrics: dict[str, Any], k: int) -> dict[str, float]:
    """Catalogue-wide metrics of one run at cut-off k, as its JSON has them, in the order of texts.yaml."""
    return {
        name: float(metrics[name])
        for wanted in texts()["catalogue"]
        for name in (wanted, f"{wanted}@{k}")
        if isinstance(metrics.get(name), int | float)
    }


def summarize(inputs: ReportInputs, results: Results) -> dict[str, Any]:
    """The deterministic summary: no time, no revision, no machine.

    Returns:
        {"protocol_hash", "protocol_hashes": {model: hash}, "results": {model: {arm: {metric: value}}},
        "differences": {model: {arm: {metric: {"mean", "low", "high"}}}}, "against_controls": {model: {"ARM - CONTROL":
        ...}}}; metrics of the tail and the long tail carry the prefix `tail_` or `long_tail_`.
    """
    k = main_k(inputs.params.evaluate.ks)
    summary: dict[str, Any] = {"results": {}, "differences": {}, "against_controls": {}}
    for (model, arm), means in results.means.items():
        values = _flat(means) | catalogue_metrics(inputs.metrics[model, arm], k)
        rounded = {name: round(value, DECIMALS) for name, value in values.items()}
        summary["results"].setdefault(model, {})[arm] = rounded
    for (model, arm), found in results.differences.items():
        summary["differences"].setdefault(model, {})[arm] = _rounded(found)
    for (model, arm, control), found in results.against_controls.items():
        summary["against_controls"].setdefault(model, {})[f"{arm} - {control}"] = _rounded(found)
    return {"protocol_hash": inputs.protocol_hash, "protocol_hashes": inputs.protocol_hashes, **summary}


def _flat(by_key: Mapping[Key, Any]) -> dict[str, Any]:
    """What the main slices have, by the summary's names."""
    names = {part: "" if part == OVERALL else f"{part}_" for part in MAIN_SLICES}
    return {names[part] + metric: found for (part, metric), found in by_key.items() if part in names}


def _rounded(differences: Mapping[Key, Interval]) -> dict[str, dict[str, float]]:
    """Differences of the main slices, ready for the summary."""
    return {
        name: {end: round(value, DECIMALS) for end, value in interval._asdict().items()}
        for name, interval in _flat(differences).items()
    }
