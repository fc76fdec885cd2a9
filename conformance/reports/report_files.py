"""Writes the reports as files beside their evidence."""

from __future__ import annotations

from pathlib import Path

from conformance.errors import ObservationError
from conformance.evidence.folder import REPORTS, write_atomically
from conformance.reports.html import as_html
from conformance.reports.markdown import as_markdown
from conformance.reports.report import Report
from conformance.reports.report_json import as_json


def write_reports(report: Report) -> str:
    """Write every form; return a sentence that says where the page is, or why it could not be written."""
    folder = Path(report.run.evidence)
    texts = as_html(report), as_markdown(report), as_json(report.run, report.judgement)
    try:
        for name, text in zip(REPORTS, texts, strict=True):
            write_atomically(folder / name, text)
    except ObservationError as error:  # read-only evidence can still be judged
        return f"No report was written: {error}"
    return f"Report: {folder / REPORTS[0]}"
