"""Build the report: one self-contained HTML page, the same as Markdown, and the summary."""

import re
from dataclasses import dataclass
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from llm_i2i.reporting import plots, result_tables, run_tables, sentences
from llm_i2i.reporting.collect import TRAININGS, Json, ReportInputs
from llm_i2i.reporting.experiment_views import experiment_table, rows_of, tell
from llm_i2i.reporting.results import HEADLINES, Results, compute_results, summarize
from llm_i2i.reporting.svg import FONT_STACK, Plot, css_variables
from llm_i2i.reporting.tables import escape_markdown, markdown_table
from llm_i2i.reporting.words import NOT_MEASURED, metric_name, model_name, slice_name


@dataclass(frozen=True)
class Report:
    """A finished report."""

    html: str  # Self-contained page; loads nothing and runs no script
    markdown: str  # The same tables without plots
    summary: dict[str, Any]  # Deterministic numbers, see `llm_i2i.reporting.results.summarize`


def _parts(inputs: ReportInputs) -> dict[str, Any]:
    """The optional parts of the page (title, text, tables, images, points); gate and comparison None if not there."""
    experiments = []
    for content in inputs.experiments:
        name, question, rows = str(content["name"]), str(content["question"]), rows_of(content["rows"])
        seeds, failures = len(content.get("seeds", ())), content.get("failures", {})
        text = tell(rows, question=question, seeds=seeds, failures=failures)
        tables = [experiment_table(rows, name=name, question=question)]
        experiments.append(
            {"title": name, "text": text, "tables": tables, "images": content["images"], "points": ()}
        )
    gate, comparison = inputs.gate, inputs.comparison
    return {
        "experiments": experiments,
        "gate": gate and {"title": "Gate", **sentences.gate(gate), "tables": (), "images": ()},
        "comparison": comparison
        and {
            "title": f"Against {comparison['against']}",
            "text": sentences.comparison(comparison),
            "tables": run_tables.comparison_tables(comparison),
            "images": (),
            "points": (),
        },
    }


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


def _plots(inputs: ReportInputs, results: Results) -> dict[str, Plot | None]:
    """Every plot that has data; None = not measured here."""
    rule, counts, metric = inputs.params.fuse.rule, run_tables.bucket_counts(inputs), results.main_metric
    differences = [
        (
            f"{model_name(run[0])}\n{run[1]}",
            {slice_name(part): found[part, metric] for part in HEADLINES if (part, metric) in found},
        )
        for model in inputs.models
        for arm in inputs.arms
        if (found := results.differences.get(run := (model, arm)))
    ]
    bins = (inputs.held_out or {}).get("reliability")
    drawn = {
        f"loss_{name}": plots.plot_training({name: log}, column="loss", label="loss", name=f"loss-{name}")
        for name, log in inputs.training.items()
    }
    if inputs.tokens_per_s:
        drawn["speed"] = plots.plot_training(
            inputs.tokens_per_s, column="tokens_per_s", label="tokens per second", name="speed"
        )
    if differences:
        drawn["differences"] = plots.plot_differences(
            differences, metric=metric_name(metric), against="arm real", name="differences"
        )
    if bins:
        drawn["reliability"] = plots.plot_reliability(bins)
    if counts.to_numpy().any():
        drawn["buckets"] = plots.plot_bucket_counts(counts)
    threshold = rule.threshold if rule.mode == "threshold" else None
    drawn["p_yes"] = plots.plot_p_yes(inputs.scored, threshold=threshold)
    drawn["long_tail"] = plots.plot_long_tail(inputs.items)
    names = (*(f"loss_{name}" for name in TRAININGS), "speed", "differences", "reliability", "buckets")
    return dict.fromkeys(names) | drawn


def _model_facts(inputs: ReportInputs) -> dict[str, str]:
    """What is known of the base LLM, the parts that identify it first."""
    flat = _flatten(inputs.base_model or {})
    first = [name for name in ("source", "id", "revision", "licence", "license", "sha256") if name in flat]
    facts = {name: flat[name] for name in [*first, *(name for name in flat if name not in first)]}
    # How it knows the items belongs to what it is.
    return {**facts, "item identifier": inputs.params.identify.identifier} if facts else facts


def _context(inputs: ReportInputs, results: Results) -> dict[str, Any]:
    """Everything the templates show."""
    params = inputs.params.model_dump(mode="json", by_alias=True)
    of_results = ("main_table", "control_table", "bucket_table")
    of_run = ("auc_table", "accepted_table", "kept_table", "bucket_kept_table", "sample_table", "runtime_table",
              "data_table", "validation_table")  # fmt: skip
    told = ("added", "generator", "discriminator", "validation", "data_name")
    return {
        **{name: getattr(result_tables, name)(inputs, results) for name in of_results},
        **{name: getattr(run_tables, name)(inputs) for name in of_run},
        **{name: getattr(sentences, name)(inputs) for name in told},
        "catalogue_table": result_tables.catalogue_table(inputs),
        "cards": sentences.cards(results),
        "notes": sentences.trust_notes(inputs, results),
        "cost": run_tables.cost(inputs),
        "n_test_users": results.n_users["overall"],
        "n_items": len(inputs.items),
        "n_train": inputs.split_rows["train"],
        "split_manifest": _flatten(inputs.split_manifest),
        "details": {
            "Synthesis": _flatten(inputs.synthesis or {}),
            "Calibration": _flatten(inputs.calibration or {}),
        },
        "provenance": inputs.provenance,
        "protocol_hash": inputs.protocol_hash,
        "protocol": _flatten(next(iter(inputs.metrics.values())).get("protocol", {})),
        "base_model": _model_facts(inputs),
        "params": yaml.safe_dump(params, sort_keys=False, default_flow_style=None),
        "plots": _plots(inputs, results),
        "not_measured": NOT_MEASURED,
        **_parts(inputs),
    }


def build_report(inputs: ReportInputs) -> Report:
    """Build the report of what `collect` read; the same inputs give the same report."""
    results = compute_results(inputs)
    environment = Environment(
        loader=PackageLoader("llm_i2i.reporting"),
        autoescape=select_autoescape(["html.j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"md": escape_markdown, "md_table": markdown_table}
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
