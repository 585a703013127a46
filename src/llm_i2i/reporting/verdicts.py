"""The report's sentences: what happened, and how far to trust it."""

import math
from dataclasses import dataclass

from llm_i2i.reporting.collect import BASELINE_ARM, ReportInputs
from llm_i2i.reporting.results import AUGMENTED_ARM, LONG_TAIL, OVERALL, Results, Verdict
from llm_i2i.schema import CONTROLS

MODEL_NAMES = {
    "swing": "Swing",
    "bpr": "BPR",
    "item_knn": "Item-kNN",
    "bm25": "BM25",
    "popularity": "Popularity",
    "youtube_dnn": "YoutubeDNN",
    "generator": "The generator alone",
}
CONTROL_ARMS = tuple(name + end for name in CONTROLS for end in ("", "_filtered"))
FEW_USERS = 300
MINUS = "−"


@dataclass(frozen=True)
class Card:
    """A verdict in words.

    Attributes:
        model: Display name of the model.
        outcome: "better", "worse", "none" or "unknown", of all test targets.
        headline: A few words.
        sentences: One about all targets, one about the long tail where it has test users.
    """

    model: str
    outcome: str
    headline: str
    sentences: tuple[str, ...]


def model_name(model: str) -> str:
    """A model's name as people write it."""
    plain = model.removesuffix("_tuned")
    return MODEL_NAMES.get(plain, plain) + (" (tuned)" if plain != model else "")


def metric_name(metric: str) -> str:
    """Write "recall@10" as "Recall@10", "ndcg@10" as "NDCG@10"."""
    name, _, k = metric.partition("@")
    return {"recall": "Recall", "ndcg": "NDCG"}.get(name, name) + (f"@{k}" if k else "")


def signed(value: float) -> str:
    """A difference with its sign and four decimals."""
    text = f"{value:+.4f}"
    return "0.0000" if float(text) == 0.0 else text.replace("-", MINUS)


def _headline(verdict: Verdict) -> str:
    subject = "LLM augmentation" if verdict.arm == AUGMENTED_ARM else f"Augmentation {verdict.arm}"
    return {
        "better": f"{subject} helped",
        "worse": f"{subject} hurt",
        "none": "No difference shown",
        "unknown": "Nothing to compare",
    }[verdict.outcome]


def _targets(verdict: Verdict) -> str:
    targets = "On long-tail targets" if verdict.slice_name == LONG_TAIL else "Over all targets"
    return f"{targets} ({verdict.n_users:,} test users)"


def _sentence(verdict: Verdict) -> str:
    if verdict.difference is None:
        if not verdict.arm:
            return f"No augmented arm was evaluated for {model_name(verdict.model)}."
        if not math.isnan(verdict.baseline):
            return f"Only {verdict.n_users:,} test users: too few to say whether arm {verdict.arm} helps."
        return (
            f"Arm {BASELINE_ARM} was not evaluated for {model_name(verdict.model)}: a gain cannot be stated."
        )
    if verdict.difference.low == verdict.difference.high == 0.0:
        return (
            f"{_targets(verdict)}, {metric_name(verdict.metric)} of {model_name(verdict.model)} is "
            f"{verdict.value:.4f} with arm {verdict.arm} and without: no test user's result differs."
        )
    relative = f" ({100 * verdict.difference.mean / verdict.baseline:+.1f} %)" if verdict.baseline > 0 else ""
    ending = {
        "better": "better: the interval lies above 0",
        "worse": "worse: the interval lies below 0",
        "none": "no difference shown, the interval includes 0",
    }[verdict.outcome]
    return (
        f"{_targets(verdict)}, {metric_name(verdict.metric)} of {model_name(verdict.model)} "
        f"is {verdict.value:.4f} with arm {verdict.arm} against {verdict.baseline:.4f} on real data alone: "
        f"{signed(verdict.difference.mean)}{relative.replace('-', MINUS)}, 95 % interval "
        f"{signed(verdict.difference.low)} to {signed(verdict.difference.high)}; {ending}."
    )


def cards(results: Results) -> list[Card]:
    """One card a model.

    Args:
        results: What `compute_results` made.

    Returns:
        In the order of the models; the long tail is left out where it has no test user.
    """
    made = []
    for model, (overall, long_tail) in results.verdicts.items():
        sentences = [_sentence(overall)]
        if long_tail.difference is not None:
            sentences.append(_sentence(long_tail))
        made.append(Card(model_name(model), overall.outcome, _headline(overall), tuple(sentences)))
    return made


def _auc_note(inputs: ReportInputs) -> list[str]:
    held_out = inputs.held_out or {}
    if not {"auc", "auc_low", "auc_high"} <= held_out.keys():
        return ["The discriminator's held-out AUC was not measured here, so its filter is unproven."]
    auc, low, high = (float(held_out[name]) for name in ("auc", "auc_low", "auc_high"))
    interval = f"held-out AUC {auc:.3f}, 95 % interval {low:.3f} to {high:.3f}"
    if low > 0.5:
        return [f"The discriminator tells real pairs from sampled negatives better than chance ({interval})."]
    return [f"The discriminator is not shown to be better than chance ({interval}): its filter is unproven."]


def _validation_note(inputs: ReportInputs) -> list[str]:
    failed = [entry for entry in inputs.validation.get("expectations", []) if not entry.get("success", True)]
    if not failed:
        return []
    return [f"The data broke {len(failed)} expectation{'s' * (len(failed) > 1)}; see the section on data."]


def _dirty_note(inputs: ReportInputs) -> list[str]:
    changed = inputs.provenance.changed
    if not changed:
        return []
    shown = ", ".join(changed[:3]) + (f" and {len(changed) - 3} more" if len(changed) > 3 else "")
    return [
        f"Code or parameters differ from the commit named here ({shown}): it alone does not reproduce this."
    ]


def trust_notes(inputs: ReportInputs, results: Results) -> list[str]:
    """What a careful reader must know before using the numbers.

    Args:
        inputs: What `collect` read.
        results: What `compute_results` made of it.

    Returns:
        Sentences, the most important first.
    """
    notes = []
    compared = any(verdict.difference is not None for pair in results.verdicts.values() for verdict in pair)
    if compared and not set(CONTROL_ARMS) & set(inputs.arms):
        notes.append(
            "No control arm was run: a gain over real data alone does not show that the LLM is what helps; "
            "synthetic pairs of a cheap recommender at equal volume might do the same."
        )
    notes.append(
        f"Intervals resample the {results.n_users[OVERALL]:,} test users ({inputs.params.report.bootstrap_resamples:,} "
        f"paired resamples). They do not cover what another training seed would change: this is one seed."
    )
    notes.append(
        f"The verdict rests on one metric chosen beforehand, {metric_name(results.main_metric)}. The tables hold many "
        "more comparisons; about one in twenty of them would exclude 0 by chance alone."
    )
    if results.n_users[LONG_TAIL] < FEW_USERS:
        notes.append(
            f"Only {results.n_users[LONG_TAIL]:,} test users have a long-tail target: expect wide intervals there."
        )
    return [*notes, *_auc_note(inputs), *_validation_note(inputs), *_dirty_note(inputs)]
