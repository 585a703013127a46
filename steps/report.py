"""Stage report: one page that says whether augmentation helped, and what the run is watched by."""

from dataclasses import replace
from pathlib import Path

from llm_i2i.files import write_json, write_text
from llm_i2i.monitoring.run import describe, watch_run
from llm_i2i.reporting.collect import collect
from llm_i2i.reporting.report import build_report
from llm_i2i.reporting.sentences import data_name
from steps import paths
from steps.stage import Outcome, stage_step


@stage_step
def report() -> Outcome:
    """Write report.html, report.md, and what depends on results alone: summary.json and monitor.json."""
    inputs = collect(Path())
    write_json(describe(Path(), inputs.params, data_name=data_name(inputs)), paths.MONITOR)
    result = build_report(replace(inputs, watch=watch_run(inputs.params)))
    write_text(result.html, paths.REPORT_HTML)
    write_text(result.markdown, paths.REPORT_MARKDOWN)
    write_json(result.summary, paths.SUMMARY)
    return Outcome((paths.SUMMARY, paths.MONITOR))
