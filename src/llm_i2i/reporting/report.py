"""Build the report: one self-contained HTML page, the same as Markdown, and the summary."""

import re
from dataclasses import dataclass
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from llm_i2i.evaluation.bootstrap import paired_bootstrap
from llm_i2i.evaluation.metrics import per_user_metric
from llm_i2i.reporting import extra_views, facts, llm_plots, plots, tables, verdicts
from llm_i2i.reporting.collect import BASELINE_ARM, TRAININGS, Json, ReportInputs
from llm_i2i.reporting.markdown import escape_markdown
from llm_i2i.reporting.results import MAIN_SLICES, Results, compute_results, main_k, summarize
from llm_i2i.reporting.svg import FONT_STACK, css_variables
from llm_i2i.schema import USER_ID


@dataclass(frozen=True)
class Report:
    """A finished report.

    Attributes:
        html: Self-contained page; loads nothing and runs no script.
        markdown: The same tables without plots.
        summary: Deterministic numbers, see `llm_i2i.reporting.results.summarize`.
    """

    html: str
    markdown: str
    summary: dict[str, Any]


def _flatten(content: Json, prefix: str = "") -> dict[str, str]:
    """Nested scalars as dotted names; lists and long texts are left out."""
    flat: dict[str, str] = {}
    for key, value in content.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            flat |= _flatten(value, f"{name}.")
        elif isinstance(value, bool) or value is None:
            flat[name] = {True: "yes", False: "no", None: "–"}[value]
        elif isinstance(value, int):
            flat[name] = f"{value:,}"
        elif isinstance(value, float):
            flat[name] = f"{value:.4g}"
        elif isinstance(value, str) and len(value) <= 300:
            flat[name] = value
    return flat


def _difference_plot(inputs: ReportInputs, results: Results) -> plots.Plot | None:
    labels = {"overall": "all targets", "tail": "tail", "long_tail": "long tail"}
    rows = []
    for model in inputs.models:
        for arm in inputs.arms:
            differences = results.differences.get((model, arm), {})
            entries = [
                (labels[name], differences[name, results.main_metric])
                for name in MAIN_SLICES
                if (name, results.main_metric) in differences
            ]
            if entries:
                rows.append((f"{verdicts.model_name(model)}\n{arm}", entries))
    return plots.plot_differences(rows, metric=verdicts.metric_name(results.main_metric)) if rows else None


def _loss_plot(inputs: ReportInputs, name: str) -> plots.Plot | None:
    if name not in inputs.training:
        return None
    return llm_plots.plot_training(
        {name: inputs.training[name]}, column="loss", label="loss", name=f"loss-{name}"
    )


def _plots(inputs: ReportInputs, results: Results) -> dict[str, plots.Plot | None]:
    """Every plot that has data; None = not measured here."""
    fuse = inputs.params.fuse.rule
    shares = facts.bucket_shares(facts.bucket_counts(inputs))
    bins = (inputs.held_out or {}).get("reliability")
    return {
        "differences": _difference_plot(inputs, results),
        "p_yes": llm_plots.plot_p_yes(
            inputs.scored, threshold=fuse.threshold if fuse.mode == "threshold" else None
        ),
        "reliability": llm_plots.plot_reliability(bins) if bins else None,
        "buckets": plots.plot_bucket_shares(shares) if shares else None,
        **{f"loss_{name}": _loss_plot(inputs, name) for name in TRAININGS},
        "speed": llm_plots.plot_training(
            inputs.tokens_per_s, column="tokens_per_s", label="tokens a second", name="speed"
        )
        if inputs.tokens_per_s
        else None,
        "long_tail": plots.plot_long_tail(inputs.items),
    }


def _discriminator_sentence(inputs: ReportInputs) -> str:
    held_out = inputs.held_out or {}
    if not {"auc", "auc_low", "auc_high"} <= held_out.keys():
        return f"Held-out AUC of the discriminator: {tables.NOT_MEASURED}."
    text = (
        f"Held-out AUC of the discriminator, real pairs against sampled negatives: {held_out['auc']:.3f} "
        f"(95 % interval {held_out['auc_low']:.3f} to {held_out['auc_high']:.3f}; chance is 0.5)."
    )
    if isinstance(held_out.get("auc_untrained"), int | float):
        text += f" Before fine-tuning: {held_out['auc_untrained']:.3f}."
    if isinstance(held_out.get("ece"), int | float):
        text += (
            f" Expected calibration error on users the temperature was not fitted on {held_out['ece']:.3f}"
        )
        if isinstance(held_out.get("ece_uncalibrated"), int | float):
            text += f" (uncalibrated {held_out['ece_uncalibrated']:.3f})"
        if isinstance(held_out.get("temperature"), int | float):
            text += f"; temperature {held_out['temperature']:.2f}"
        text += "."
    return text


def _generator_sentence(inputs: ReportInputs) -> str:
    """The generator as a recommender of its own: before fine-tuning, and beside an index without its data."""
    if "llm_only" not in inputs.generator_alone:
        return f"The generator as a recommender of its own: {tables.NOT_MEASURED}."
    content, tuned = inputs.generator_alone["llm_only"]
    metric = (
        f"recall@{main_k(tuple(k for k in inputs.params.evaluate.ks if f'recall@{k}' in content['overall']))}"
    )
    ours = per_user_metric(metric, tuned["rank"].to_numpy())
    text = (
        f"As a recommender of its own, without an index, the fine-tuned generator has "
        f"{verdicts.metric_name(metric)} {ours.mean():.4f} on {len(tuned):,} test users"
    )
    model = inputs.models[0]
    others = {f"{verdicts.model_name(model)} on arm {BASELINE_ARM}": inputs.per_user[model, BASELINE_ARM]}
    if "untuned" in inputs.generator_alone:
        others = {"its base model before fine-tuning": inputs.generator_alone["untuned"][1], **others}
    for name, table in others.items():
        ranks = table.set_index(USER_ID)["rank"].reindex(tuned[USER_ID])
        theirs = per_user_metric(metric, ranks.to_numpy())
        found = paired_bootstrap(
            ours, theirs, resamples=inputs.params.report.bootstrap_resamples, seed=inputs.params.seed
        )
        low, high = verdicts.signed(found.low), verdicts.signed(found.high)
        text += (
            f"; {name} has {theirs.mean():.4f} on the same users (difference {verdicts.signed(found.mean)}, "
            f"95 % interval {low} to {high})"
        )
    return text + "."


def _added_sentence(inputs: ReportInputs) -> str:
    arm = facts.augmented_arm(inputs)
    if not arm:
        return "No evaluated arm holds synthetic rows."
    counts = facts.bucket_counts(inputs)
    proposed, kept = len(inputs.synthetic), sum(counts["kept"].values())
    tail = counts["kept"]["tail"] + counts["kept"]["cold"]
    n_users = inputs.synthetic["user_id"].nunique()
    return (
        f"The generator proposed {proposed:,} interactions for {n_users:,} users; arm {arm} kept {kept:,} of them "
        f"({100 * kept / max(proposed, 1):.1f} %), {100 * tail / max(kept, 1):.1f} % of those on tail or cold items."
    )


def _model_facts(inputs: ReportInputs) -> dict[str, str]:
    """What is known of the base LLM, the parts that identify it first."""
    flat = _flatten(inputs.base_model or {})
    first = [name for name in ("source", "id", "revision", "licence", "license", "sha256") if name in flat]
    facts = {name: flat[name] for name in [*first, *(name for name in flat if name not in first)]}
    # How it knows the items belongs to what it is.
    return {**facts, "item identifier": inputs.params.identify.identifier} if facts else facts


def _validation_sentence(inputs: ReportInputs) -> str:
    entries = inputs.validation.get("expectations", [])
    failed = [entry for entry in entries if not entry.get("success", True)]
    errors = sum(entry.get("severity") == "error" for entry in failed)
    if not failed:
        return f"All {len(entries)} expectations on the raw data hold."
    return (
        f"{len(entries) - len(failed)} of {len(entries)} expectations on the raw data hold; "
        f"{errors} broken as error, {len(failed) - errors} as warning."
    )


def _context(inputs: ReportInputs, results: Results) -> dict[str, Any]:
    """Everything the templates show."""
    params = yaml.safe_dump(
        inputs.params.model_dump(mode="json", by_alias=True), sort_keys=False, default_flow_style=None
    )
    return {
        "cards": verdicts.cards(results),
        "notes": verdicts.trust_notes(inputs, results),
        "cost": facts.cost(inputs),
        "baseline": BASELINE_ARM,
        "n_test_users": results.n_users["overall"],
        "n_items": len(inputs.items),
        "n_train": inputs.split_rows["train"],
        "main_table": tables.main_table(inputs, results),
        "control_table": tables.control_table(inputs, results),
        "catalogue_table": tables.catalogue_table(inputs),
        "bucket_table": tables.bucket_table(inputs, results),
        "added": _added_sentence(inputs),
        "generator": _generator_sentence(inputs),
        "discriminator": _discriminator_sentence(inputs),
        "auc_table": facts.auc_table(inputs),
        "accepted_table": facts.accepted_table(inputs),
        "kept_table": facts.kept_table(inputs),
        "bucket_kept_table": facts.bucket_kept_table(inputs),
        "sample_table": facts.sample_table(inputs),
        "runtime_table": facts.runtime_table(inputs),
        "data_table": facts.data_table(inputs),
        "validation": _validation_sentence(inputs),
        "validation_table": facts.validation_table(inputs),
        "split_manifest": _flatten(inputs.split_manifest),
        "details": {
            "Synthesis": _flatten(inputs.synthesis or {}),
            "Calibration": _flatten(inputs.calibration or {}),
        },
        "provenance": inputs.provenance,
        "protocol_hash": inputs.protocol_hash,
        "protocol": _flatten(next(iter(inputs.metrics.values())).get("protocol", {})),
        "base_model": _model_facts(inputs),
        "params": params,
        "plots": _plots(inputs, results),
        "not_measured": tables.NOT_MEASURED,
        **extra_views.shown(inputs.extras),
    }


def build_report(inputs: ReportInputs) -> Report:
    """Build the report.

    Args:
        inputs: What `llm_i2i.reporting.collect.collect` read.

    Returns:
        HTML, Markdown and summary; the same inputs give the same three.
    """
    results = compute_results(inputs)
    environment = Environment(
        loader=PackageLoader("llm_i2i.reporting"),
        autoescape=select_autoescape(["html.j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["md"] = escape_markdown
    context = _context(inputs, results)
    theme = {"light": css_variables(dark=False), "dark": css_variables(dark=True), "font": FONT_STACK}
    page = environment.get_template("report.html.j2").render(
        # The two only texts that are not escaped: CSS of our own and SVG whose texts are escaped already.
        theme={name: Markup(text) for name, text in theme.items()},  # noqa: S704
        svg={name: Markup(plot.svg) for name, plot in context["plots"].items() if plot},  # noqa: S704
        **context,
    )
    markdown = environment.get_template("report.md.j2").render(**context)
    page = re.sub(r"(\d) %", "\\1\u00a0%", page)  # a number and its % stay on one line
    return Report(html=page, markdown=markdown, summary=summarize(inputs, results))
