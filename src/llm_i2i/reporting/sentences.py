"""Every sentence of the page: what happened, what was added, and how far to trust it."""

from dataclasses import dataclass
from typing import Any

import pandas as pd

from llm_i2i.evaluation.metrics import per_user_metric
from llm_i2i.evaluation.paired import Measured, PairedDifference
from llm_i2i.reporting import words
from llm_i2i.reporting.collect import BASELINE_ARM, Json, ReportInputs
from llm_i2i.reporting.results import AUGMENTED_ARM, CONTROL_ARMS, HEADLINES, Results, main_k
from llm_i2i.reporting.run_tables import bucket_counts, generated_arm
from llm_i2i.reporting.words import say, signed
from llm_i2i.schema import OVERALL, TAIL, USER_ID

FEW_USERS = 300
# md5 of data.dvc for the tables that `make data` obtains: with other data, their name must not stand on the page.
_MOVIELENS_MD5 = "a24cebb5575348aff047ed2f86e31ebe.dir"


@dataclass(frozen=True)
class Card:
    """A verdict in words."""

    model: str  # Display name of the model
    outcome: str  # "better", "worse", "none" or "unknown", of all test targets
    headline: str  # A few words
    sentences: tuple[str, ...]  # One about all targets, one about the tail where it has test users


def cards(results: Results) -> list[Card]:
    """One card per model, in the order of the models; the tail is left out where it has too few test users."""
    subject = "LLM augmentation" if results.arm == AUGMENTED_ARM else f"Augmentation {results.arm}"
    made = []
    for model in dict.fromkeys(model for model, _ in results.means):
        difference = results.differences.get((model, results.arm), {})
        overall = difference.get((OVERALL, results.main_metric))
        outcome = "unknown" if overall is None else words.outcome_of(overall)
        shown = [OVERALL, *(part for part in HEADLINES[1:] if (part, results.main_metric) in difference)]
        told = tuple(_sentence(results, model, part) for part in shown)
        made.append(Card(words.model_name(model), outcome, say(f"card_{outcome}", subject=subject), told))
    return made


def _sentence(results: Results, model: str, part: str) -> str:
    """What the augmented arm did to one model on a slice of the test targets."""
    key, arm, name = (part, results.main_metric), results.arm, words.model_name(model)
    value, baseline = (results.means.get((model, of), {}).get(key) for of in (arm, BASELINE_ARM))
    difference, n_users = results.differences.get((model, arm), {}).get(key), results.n_users[part]
    if not arm:
        return say("no_arm", name=name)
    if baseline is None or value is None:
        return say("no_baseline", name=name)
    if difference is None:
        return say("few_users", n_users=n_users, arm=arm)
    targets = "On tail targets" if part == TAIL else "Over all targets"
    metric = words.metric_name(results.main_metric)
    subject = say("subject", targets=targets, n_users=n_users, metric=metric, name=name, value=value, arm=arm)
    if difference.low == difference.high == 0.0:
        return say("identical", subject=subject)
    relative = f" ({signed(100 * difference.mean / baseline, 1)} %)" if baseline > 0 else ""
    ends = {end: signed(number) for end, number in difference._asdict().items()}
    ending = say(words.outcome_of(difference))
    return say("difference", subject=subject, baseline=baseline, relative=relative, ending=ending, **ends)


def trust_notes(inputs: ReportInputs, results: Results) -> list[str]:
    """What a careful reader must know before using the numbers, the most important first."""
    resamples, n_users = inputs.params.report.bootstrap_resamples, results.n_users
    failed = sum(not entry.get("success", True) for entry in inputs.validation.get("expectations", []))
    changed = inputs.provenance.changed or ()
    files = ", ".join(changed[:3]) + (f" and {len(changed) - 3} more" if len(changed) > 3 else "")
    metric, expectations = words.metric_name(results.main_metric), words.plural(failed, "expectation")
    controls = [arm for arm in inputs.arms if arm in CONTROL_ARMS]  # without one a gain says little about the LLM
    notes = {
        say("controls", names=", ".join(controls)): controls,
        say("no_control"): results.differences and not controls,
        say("resampled", n_users=n_users[OVERALL], resamples=resamples): True,
        say("one_metric", metric=metric): True,
        say("few_tail", n_users=n_users[TAIL]): n_users[TAIL] < FEW_USERS,
        _auc_note(inputs): True,
        say("left_over", names=", ".join(inputs.left_over)): inputs.left_over,
        say("broken", expectations=expectations): failed,
        say("dirty", files=files): changed,
    }
    return [note for note, applies in notes.items() if applies]


def _auc_note(inputs: ReportInputs) -> str:
    held_out = inputs.held_out or {}
    if not {"auc", "auc_low", "auc_high"} <= held_out.keys():
        return say("auc_unknown")
    return say("auc_shown" if held_out["auc_low"] > 0.5 else "auc_not_shown", **held_out)


def data_name(inputs: ReportInputs) -> str:
    """What the raw data is, as section model_card names it; never by the name of the data it replaced."""
    name = inputs.params.model_card.data
    if "movielens" in name.lower() and inputs.provenance.data.get("md5", _MOVIELENS_MD5) != _MOVIELENS_MD5:
        return say("unnamed_data")
    return name


def added(inputs: ReportInputs) -> str:
    """How many pairs were proposed and kept, and by what rule: every switch that decided is named."""
    arm = generated_arm(inputs)
    if not arm:
        return say("nothing_added")
    counts = bucket_counts(inputs)
    proposed, kept = len(inputs.synthetic), int(counts["synthetic, kept"].sum())
    tail = int(counts.loc[["tail", "cold"], "synthetic, kept"].sum())
    fuse = inputs.params.fuse
    rule = fuse.rule.in_words
    whose = "the paper's selection" if words.is_papers(fuse.rule) else "our selection, not the paper's"
    if arm == "no_discriminator":
        rule, whose = f"the generator's first {fuse.rule.max_synthetic_per_user} per user", "unfiltered"
    shares = {"share": words.percent(kept / max(proposed, 1)), "tail": words.percent(tail / max(kept, 1))}
    told = {"arm": arm, "proposed": proposed, "users": inputs.synthetic[USER_ID].nunique(), "kept": kept}
    return say("added", rule=rule, whose=whose, **told, **shares)


def discriminator(inputs: ReportInputs) -> str:
    """How well the discriminator tells real pairs from sampled ones, and how well calibrated it is."""
    held_out = inputs.held_out or {}
    if not {"auc", "auc_low", "auc_high"} <= held_out.keys():
        return say("auc_missing", not_measured=words.NOT_MEASURED)

    def told(key: str) -> str:
        return say(key, **held_out) if isinstance(held_out.get(key), int | float) else ""

    error = told("ece")
    if error:
        error += told("ece_uncalibrated") + told("temperature") + "."
    return told("auc") + told("auc_untrained") + error


def generator(inputs: ReportInputs) -> str:
    """The generator as a recommender of its own: before fine-tuning, and beside an index without its data."""
    if "llm_only" not in inputs.generator_alone:
        return say("alone_missing", not_measured=words.NOT_MEASURED)
    content, tuned = inputs.generator_alone["llm_only"]
    ks = tuple(k for k in inputs.params.evaluate.ks if f"recall@{k}" in content["overall"])
    metric = f"recall@{main_k(ks)}"

    def mean(per_user: pd.DataFrame) -> float:
        return float(per_user_metric(metric, per_user["rank"].to_numpy()).mean())

    text = say("alone", metric=words.metric_name(metric), value=mean(tuned), users=len(tuned))
    model = inputs.models[0]
    others = {f"{words.model_name(model)} on arm {BASELINE_ARM}": inputs.per_user[model, BASELINE_ARM]}
    if "untuned" in inputs.generator_alone:
        others = {"its base model before fine-tuning": inputs.generator_alone["untuned"][1], **others}
    for name, table in others.items():
        same_users = table[table[USER_ID].isin(tuned[USER_ID])]
        pair = PairedDifference(Measured.once(tuned), Measured.once(same_users))
        resamples, seed = inputs.params.report.bootstrap_resamples, inputs.params.seed
        found = pair.interval(metric, resamples=resamples, seed=seed)
        ends = {end: signed(number) for end, number in found._asdict().items()}
        text += say("alone_against", name=name, value=mean(same_users), **ends)
    return text + "."


def validation(inputs: ReportInputs) -> str:
    """How many expectations on the raw data hold."""
    entries = inputs.validation.get("expectations", [])
    failed = [entry for entry in entries if not entry.get("success", True)]
    errors = sum(entry.get("severity") == "error" for entry in failed)
    if not failed:
        return say("all_hold", n=len(entries))
    held, warnings = len(entries) - len(failed), len(failed) - errors
    return say("some_hold", held=held, n=len(entries), errors=errors, warnings=warnings)


def gate(content: Json) -> dict[str, Any]:
    """The gate's verdict as text, and its reasons as points."""
    verdict = str(content.get("verdict") or ("passed" if content.get("passed") else "not passed"))
    lines = []
    for entry in content.get("reasons") or []:
        shown = [f"{key}: {value}" for key, value in entry.items()] if isinstance(entry, dict) else [str(entry)]
        lines.append(", ".join(shown))
    return {"text": say("gate", verdict=verdict), "points": lines}


def comparison(content: Json) -> str:
    """What a comparison with another revision is about."""
    missing = say("comparison_missing", names=", ".join(content["missing"])) if content["missing"] else ""
    changes = f"{words.plural(len(content['params']), 'parameter')} changed"
    commit = str(content["commit"])[:12]
    return say("comparison", against=content["against"], commit=commit, changes=changes, missing=missing)
