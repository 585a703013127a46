"""Stage report: one page that says whether augmentation helped."""

from pathlib import Path

from llm_i2i.files import write_json, write_text
from llm_i2i.reporting.collect import collect
from llm_i2i.reporting.report import build_report
from steps import paths
from steps.stage import Outcome, stage_step


@stage_step
def report() -> Outcome:
    """Write report.html, report.md and summary.json, which holds only what depends on results."""
    result = build_report(collect(Path()))
    write_text(result.html, paths.REPORT_HTML)
    write_text(result.markdown, paths.REPORT_MARKDOWN)
    write_json(result.summary, paths.SUMMARY)
    return Outcome((paths.SUMMARY,))
