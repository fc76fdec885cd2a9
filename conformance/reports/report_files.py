"""Writes the reports as files beside their evidence."""

from __future__ import annotations

from pathlib import Path

from conformance.errors import ObservationError
from conformance.evidence.folder import REPORTS, write_atomically
from conformance.judging.verdict import Judgement, Run
from conformance.profile.profile import Profile
from conformance.reports.html import as_html
from conformance.reports.markdown import as_markdown
from conformance.reports.report import gather
from conformance.reports.report_json import as_json


def write_reports(run: Run, judgement: Judgement, profile: Profile) -> str:
    """Write every form; return a sentence that says where the page is, or why it could not be written."""
    report = gather(run, judgement, profile)
    texts = as_html(report), as_markdown(report), as_json(run, judgement)
    try:
        for name, text in zip(REPORTS, texts, strict=True):
            write_atomically(Path(run.evidence) / name, text)
    except ObservationError as error:  # read-only evidence can still be judged
        return f"No report was written: {error}"
    return f"Report: {Path(run.evidence) / REPORTS[0]}"
