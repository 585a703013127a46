"""Build the report: one self-contained HTML page, the same as Markdown, and the summary."""

import base64
import hashlib
import re
from dataclasses import dataclass
from typing import Any

import yaml
from markupsafe import Markup

from llm_i2i.params.reading import leaves
from llm_i2i.reporting import plots, result_tables, run_tables, sentences
from llm_i2i.reporting.collect import BASELINE_ARM, Json, ReportInputs
from llm_i2i.reporting.experiment_views import experiment_table, tell
from llm_i2i.reporting.monitor import monitor_part
from llm_i2i.reporting.no_gain import no_gain_of_swing
from llm_i2i.reporting.results import HEADLINES, Results, compute_results, summarize
from llm_i2i.reporting.svg import FONT_STACK, Plot, css_variables
from llm_i2i.reporting.tables import templates
from llm_i2i.reporting.words import NOT_MEASURED, metric_name, model_name, slice_name


@dataclass(frozen=True)
class Report:
    """A finished report."""

    html: str  # Self-contained page; loads nothing and runs one script, its own
    markdown: str  # The same tables without plots
    summary: dict[str, Any]  # Deterministic numbers, see `llm_i2i.reporting.results.summarize`


def _parts(inputs: ReportInputs, results: Results) -> dict[str, Any]:
    """The optional parts of the page: title, text and what there is of points, images and tables; None if not there."""
    gate, comparison = inputs.gate, inputs.comparison
    return {
        "no_gain": no_gain_of_swing(inputs, results),
        "experiments": [
            {"title": one["name"], "text": tell(one), "tables": [experiment_table(one)], "images": one["images"]}
            for one in inputs.experiments
        ],
        "gate": gate and {"title": "Gate", **sentences.gate(gate)},
        "monitor": inputs.watch and {"title": "Run against run", **monitor_part(inputs.watch)},
        "comparison": comparison
        and {
            "title": f"Against {comparison['against']}",
            "text": sentences.comparison(comparison),
            "tables": run_tables.comparison_tables(comparison),
        },
    }


def _flatten(content: Json) -> dict[str, str]:
    """Nested scalars as dotted names; lists and long texts are left out."""
    flat: dict[str, str] = {}
    for key, value in leaves(content):
        name = ".".join(key)
        if isinstance(value, bool) or value is None:
            flat[name] = {True: "yes", False: "no", None: "–"}[value]
        elif isinstance(value, int | float):
            flat[name] = format(value, "," if isinstance(value, int) else ".4g")
        elif isinstance(value, str) and len(value) <= 300:
            flat[name] = value
    return flat


def _plots(inputs: ReportInputs, results: Results) -> dict[str, Plot]:
    """Every plot that has data."""
    rule, counts, metric = inputs.params.fuse.rule, run_tables.bucket_counts(inputs), results.main_metric
    differences = {
        f"{model_name(model)}\n{arm}": {
            slice_name(part): found[part, metric] for part in HEADLINES if (part, metric) in found
        }
        for (model, arm), found in results.differences.items()
    }
    threshold = rule.threshold if rule.mode == "threshold" else None
    made = {
        "p_yes": plots.plot_p_yes(inputs.scored, threshold=threshold),
        "long_tail": plots.plot_long_tail(inputs.items),
    }
    for name, log in inputs.training.items():
        made[f"loss_{name}"] = plots.plot_training({name: log}, column="loss", label="loss", name=f"loss-{name}")
    if logs := inputs.tokens_per_s:
        made["speed"] = plots.plot_training(logs, column="tokens_per_s", label="tokens per second", name="speed")
    if differences:
        shown, against = metric_name(metric), f"arm {BASELINE_ARM}"
        made["differences"] = plots.plot_differences(differences, metric=shown, against=against, name="differences")
    if bins := (inputs.held_out or {}).get("reliability"):
        made["reliability"] = plots.plot_reliability(bins)
    if counts.to_numpy().any():
        made["buckets"] = plots.plot_bucket_counts(counts)
    return made


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
    of_run = ("auc_table", "judge_table", "accepted_table", "kept_table", "bucket_kept_table", "sample_table",
              "runtime_table", "data_table", "validation_table")  # fmt: skip
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
        "details": {"Synthesis": _flatten(inputs.synthesis or {}), "Calibration": _flatten(inputs.calibration or {})},
        "provenance": inputs.provenance,
        "protocol_hash": inputs.protocol_hash,
        "protocol": _flatten(next(iter(inputs.metrics.values())).get("protocol", {})),
        "base_model": _model_facts(inputs),
        "params": yaml.safe_dump(params, sort_keys=False, default_flow_style=None),
        "plots": _plots(inputs, results),
        "not_measured": NOT_MEASURED,
        **_parts(inputs, results),
    }


def build_report(inputs: ReportInputs) -> Report:
    """Build the report of what `collect` read; the same inputs give the same report."""
    results = compute_results(inputs)
    context, environment = _context(inputs, results), templates()
    script = environment.get_template("report.js").render()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    theme = {"light": css_variables(dark=False), "dark": css_variables(dark=True), "font": FONT_STACK}
    page = environment.get_template("report.html.j2").render(
        # The only texts that are not escaped: script and CSS of our own and SVG whose texts are escaped already.
        script={"text": Markup(script), "hash": f"sha256-{digest}"},  # noqa: S704
        theme={name: Markup(text) for name, text in theme.items()},  # noqa: S704
        svg={name: Markup(plot.svg) for name, plot in context["plots"].items()},  # noqa: S704
        **context,
    )
    markdown = environment.get_template("report.md.j2").render(**context)
    page = re.sub(r"(\d,?) (?=%|[+−]?[\d.]+\])", "\\1\u00a0", page)  # a number and its %, an interval: on one line
    return Report(html=page, markdown=markdown, summary=summarize(inputs, results))
