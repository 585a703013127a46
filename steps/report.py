"""Stage report: one page that says whether augmentation helped."""

from pathlib import Path

from llm_i2i.files import staged, write_json
from llm_i2i.reporting.collect import collect
from llm_i2i.reporting.report import build_report
from steps import paths
from steps.stage import Outcome, stage_step


@stage_step
def report() -> Outcome:
    """Write report.html, report.md and summary.json, which holds only what depends on results."""
    result = build_report(collect(Path()))
    with staged(paths.REPORT_HTML) as html, staged(paths.REPORT_MARKDOWN) as markdown, staged(paths.SUMMARY) as summary:
        html.write_text(result.html, encoding="utf-8")
        markdown.write_text(result.markdown, encoding="utf-8")
        write_json(result.summary, summary)
    return Outcome((paths.SUMMARY,))
