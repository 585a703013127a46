"""Every sentence of the page: what happened, what was added, and how far to trust it."""

from dataclasses import dataclass
from typing import Any

import pandas as pd

from llm_i2i.evaluation.metrics import per_user_metric
from llm_i2i.evaluation.paired import Measured, PairedDifference
from llm_i2i.reporting.collect import BASELINE_ARM, Json, ReportInputs
from llm_i2i.reporting.results import AUGMENTED_ARM, CONTROL_ARMS, HEADLINES, Results, main_k
from llm_i2i.reporting.run_tables import bucket_counts, generated_arm
from llm_i2i.reporting.words import (
    NOT_MEASURED,
    is_papers,
    metric_name,
    model_name,
    outcome_of,
    percent,
    plural,
    selection_words,
    signed,
)
from llm_i2i.schema import OVERALL, TAIL, USER_ID

FEW_USERS = 300
# md5 of data.dvc for the tables that `make data` obtains: with other data, their name must not stand on the page.
_MOVIELENS_MD5 = "a24cebb5575348aff047ed2f86e31ebe.dir"
_MOVIELENS = "movielens"


@dataclass(frozen=True)
class Card:
    """A verdict in words.

    Attributes:
        model: Display name of the model.
        outcome: "better", "worse", "none" or "unknown", of all test targets.
        headline: A few words.
        sentences: One about all targets, one about the tail where it has test users.
    """

    model: str
    outcome: str
    headline: str
    sentences: tuple[str, ...]


def cards(results: Results) -> list[Card]:
    """One card per model, in the order of the models; the tail is left out where it has too few test users."""
    made = []
    for model in dict.fromkeys(model for model, _ in results.means):
        difference = results.differences.get((model, results.arm), {})
        overall = difference.get((OVERALL, results.main_metric))
        outcome = "unknown" if overall is None else outcome_of(overall)
        shown = [OVERALL, *(part for part in HEADLINES[1:] if (part, results.main_metric) in difference)]
        told = tuple(_sentence(results, model, part) for part in shown)
        made.append(Card(model_name(model), outcome, _headline(outcome, results.arm), told))
    return made


def _headline(outcome: str, arm: str) -> str:
    subject = "LLM augmentation" if arm == AUGMENTED_ARM else f"Augmentation {arm}"
    words = {"better": f"{subject} helped", "worse": f"{subject} hurt", "none": "No difference shown"}
    return words.get(outcome, "Nothing to compare")


def _sentence(results: Results, model: str, part: str) -> str:
    """What the augmented arm did to one model on a slice of the test targets."""
    key, arm, name = (part, results.main_metric), results.arm, model_name(model)
    value, baseline = (results.means.get((model, of), {}).get(key) for of in (arm, BASELINE_ARM))
    difference, n_users = results.differences.get((model, arm), {}).get(key), results.n_users[part]
    if not arm:
        return f"No augmented arm was evaluated for {name}."
    if baseline is None or value is None:
        return f"Arm {BASELINE_ARM} was not evaluated for {name}: a gain cannot be stated."
    if difference is None:
        return f"Only {n_users:,} test users: too few to say whether arm {arm} helps."
    targets = "On tail targets" if part == TAIL else "Over all targets"
    subject = (
        f"{targets} ({n_users:,} test users), {metric_name(key[1])} of {name} is {value:.4f} with arm {arm}"
    )
    if difference.low == difference.high == 0.0:
        return f"{subject} and without: no test user's result differs."
    relative = f" ({signed(100 * difference.mean / baseline, 1)} %)" if baseline > 0 else ""
    ending = {
        "better": "better: the interval lies above 0",
        "worse": "worse: the interval lies below 0",
        "none": "no difference shown, the interval includes 0",
    }[outcome_of(difference)]
    return (
        f"{subject} against {baseline:.4f} on real data alone: {signed(difference.mean)}{relative}, 95 % interval "
        f"{signed(difference.low)} to {signed(difference.high)}; {ending}."
    )


def trust_notes(inputs: ReportInputs, results: Results) -> list[str]:
    """What a careful reader must know before using the numbers.

    Args:
        inputs: What `collect` read.
        results: What `compute_results` made of it.

    Returns:
        Sentences, the most important first.
    """
    resamples, n_users = inputs.params.report.bootstrap_resamples, results.n_users
    failed = sum(not entry.get("success", True) for entry in inputs.validation.get("expectations", []))
    changed = inputs.provenance.changed or ()
    files = ", ".join(changed[:3]) + (f" and {len(changed) - 3} more" if len(changed) > 3 else "")
    few = results.n_users[TAIL] < FEW_USERS
    notes = {
        _control_note(inputs, results): True,
        f"Intervals resample the {n_users[OVERALL]:,} test users ({resamples:,} paired resamples). They do not cover "
        "what another training seed would change: this is one seed.": True,
        f"The verdict rests on one metric chosen beforehand, {metric_name(results.main_metric)}. The tables hold many "
        "more comparisons; about one in twenty of them would exclude 0 by chance alone.": True,
        f"Only {n_users[TAIL]:,} test users have a tail target: expect wide intervals there.": few,
        _auc_note(inputs): True,
        "Not reported, since params.yaml no longer names their model or arm: "
        f"{', '.join(inputs.left_over)} (left over in reports/metrics).": inputs.left_over,
        f"The data broke {plural(failed, 'expectation')}; see the section on data.": failed,
        f"Code or parameters differ from the commit named here ({files}): it alone does not reproduce this.": changed,
    }
    return [note for note, applies in notes.items() if note and applies]


def _control_note(inputs: ReportInputs, results: Results) -> str:
    """Which control arms ran; without one a gain says little about the LLM."""
    controls = [arm for arm in inputs.arms if arm in CONTROL_ARMS]
    if controls:
        return f"Controls, pairs of a cheap recommender in the LLM's place: {', '.join(controls)}."
    if not results.differences:
        return ""
    return (
        "No control arm was run: a gain over real data alone does not show that the LLM is what helps; "
        "synthetic pairs of a cheap recommender at equal volume might do the same."
    )


def _auc_note(inputs: ReportInputs) -> str:
    held_out = inputs.held_out or {}
    if not {"auc", "auc_low", "auc_high"} <= held_out.keys():
        return "The discriminator's held-out AUC was not measured here, so its filter is unproven."
    auc, low, high = (float(held_out[name]) for name in ("auc", "auc_low", "auc_high"))
    interval = f"held-out AUC {auc:.3f}, 95 % interval {low:.3f} to {high:.3f}"
    if low > 0.5:
        return f"The discriminator tells real pairs from sampled negatives better than chance ({interval})."
    return f"The discriminator is not shown to be better than chance ({interval}): its filter is unproven."


def data_name(inputs: ReportInputs) -> str:
    """What the raw data is, as section model_card names it; never by the name of the data it replaced."""
    name = inputs.params.model_card.data
    if _MOVIELENS in name.lower() and inputs.provenance.data.get("md5", _MOVIELENS_MD5) != _MOVIELENS_MD5:
        return "own data without a name (set model_card.data in params.yaml)"
    return name


def added(inputs: ReportInputs) -> str:
    """How many pairs were proposed and kept, and by what rule: every switch that decided is named."""
    arm = generated_arm(inputs)
    if not arm:
        return "No evaluated arm holds synthetic rows."
    counts = bucket_counts(inputs)
    proposed, kept = len(inputs.synthetic), sum(counts["kept"].values())
    tail = counts["kept"]["tail"] + counts["kept"]["cold"]
    fuse = inputs.params.fuse
    rule = selection_words(fuse.rule)
    whose = "the paper's selection" if is_papers(fuse.rule) else "our selection, not the paper's"
    if arm == "no_discriminator":
        rule, whose = f"the generator's first {fuse.rule.max_synthetic_per_user} per user", "unfiltered"
    return (
        f"The generator proposed {proposed:,} interactions for {inputs.synthetic[USER_ID].nunique():,} users; arm "
        f"{arm} kept {kept:,} of them ({percent(kept / max(proposed, 1))}), {percent(tail / max(kept, 1))} of those on "
        f"tail or cold items. Kept: {rule} ({whose})."
    )


def discriminator(inputs: ReportInputs) -> str:
    """How well the discriminator tells real pairs from sampled ones, and how well calibrated it is."""
    held_out = inputs.held_out or {}
    if not {"auc", "auc_low", "auc_high"} <= held_out.keys():
        return f"Held-out AUC of the discriminator: {NOT_MEASURED}."

    def told(key: str, words: str) -> str:
        return words.format(held_out[key]) if isinstance(held_out.get(key), int | float) else ""

    text = (
        f"Held-out AUC of the discriminator, real pairs against sampled negatives: {held_out['auc']:.3f} "
        f"(95 % interval {held_out['auc_low']:.3f} to {held_out['auc_high']:.3f}; chance is 0.5)."
    ) + told("auc_untrained", " Before fine-tuning: {:.3f}.")
    error = told("ece", " Expected calibration error on users the temperature was not fitted on {:.3f}")
    if error:
        error += (
            told("ece_uncalibrated", " (uncalibrated {:.3f})")
            + told("temperature", "; temperature {:.2f}")
            + "."
        )
    return text + error


def generator(inputs: ReportInputs) -> str:
    """The generator as a recommender of its own: before fine-tuning, and beside an index without its data."""
    if "llm_only" not in inputs.generator_alone:
        return f"The generator as a recommender of its own: {NOT_MEASURED}."
    content, tuned = inputs.generator_alone["llm_only"]
    metric = (
        f"recall@{main_k(tuple(k for k in inputs.params.evaluate.ks if f'recall@{k}' in content['overall']))}"
    )
    text = (
        f"As a recommender of its own, without an index, the fine-tuned generator has {metric_name(metric)} "
        f"{_mean(metric, tuned):.4f} on {len(tuned):,} test users"
    )
    model = inputs.models[0]
    others = {f"{model_name(model)} on arm {BASELINE_ARM}": inputs.per_user[model, BASELINE_ARM]}
    if "untuned" in inputs.generator_alone:
        others = {"its base model before fine-tuning": inputs.generator_alone["untuned"][1], **others}
    for name, found in others.items():
        same_users = found[found[USER_ID].isin(tuned[USER_ID])]
        pair = PairedDifference(Measured.once(tuned), Measured.once(same_users))
        resamples, seed = inputs.params.report.bootstrap_resamples, inputs.params.seed
        mean, low, high = (signed(value) for value in pair.interval(metric, resamples=resamples, seed=seed))
        text += (
            f"; {name} has {_mean(metric, same_users):.4f} on the same users (difference {mean}, "
            f"95 % interval {low} to {high})"
        )
    return text + "."


def _mean(metric: str, per_user: pd.DataFrame) -> float:
    return float(per_user_metric(metric, per_user["rank"].to_numpy()).mean())


def validation(inputs: ReportInputs) -> str:
    """How many expectations on the raw data hold."""
    entries = inputs.validation.get("expectations", [])
    failed = [entry for entry in entries if not entry.get("success", True)]
    errors = sum(entry.get("severity") == "error" for entry in failed)
    if not failed:
        return f"All {len(entries)} expectations on the raw data hold."
    return (
        f"{len(entries) - len(failed)} of {len(entries)} expectations on the raw data hold; "
        f"{errors} broken as error, {len(failed) - errors} as warning."
    )


def gate(content: Json) -> tuple[str, list[str]]:
    """The gate's verdict, and its reasons, each as a line."""
    verdict = str(content.get("verdict") or ("passed" if content.get("passed") else "not passed"))
    reasons: list[Any] = content.get("reasons") or []
    lines = [
        ", ".join(f"{key}: {value}" for key, value in entry.items())
        if isinstance(entry, dict)
        else str(entry)
        for entry in reasons
    ]
    return f"Verdict of the gate: {verdict}.", lines


def comparison(content: Json) -> str:
    """What a comparison with another revision is about."""
    against = f"{content['against']} ({str(content['commit'])[:12]})"
    text = f"This revision against {against}: {plural(len(content['params']), 'parameter')} that differ."
    if content["missing"]:
        text += f" Only one of the two has {', '.join(content['missing'])}."
    return text
