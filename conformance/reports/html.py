"""The report as one page of HTML, without scripts and downloads, for screens, paper, dark mode and screen readers."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Iterable

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from rich.text import Text

from conformance.judging.response import RESPONSES
from conformance.judging.verdict import ExitCode, Record, Run, Verdict
from conformance.reports.report import Report
from conformance.reports.sanitize import printable

MARKS = {
    Verdict.PASS: "✓",
    Verdict.FAIL: "✗",
    Verdict.INCONCLUSIVE: "?",
    Verdict.UNSUPPORTED: "∅",
    Verdict.WAIVED: "~",
    Verdict.ERROR: "!",
}
TONES = {ExitCode.QUALIFIED: "good", ExitCode.NOT_QUALIFIED: "bad", ExitCode.INSTRUMENT: "bad"}
LINES = 4  # findings that a closed check shows, one below the other
LINK = re.compile(r"(https://[^\s;,)]+)")
UPSTREAM = re.compile(r"(?:vllm-project/)?vllm#(\d+)")


def as_html(report: Report) -> str:
    """The whole page. Text from a server, a model or a log is never interpreted as markup."""
    engine = Environment(
        loader=PackageLoader("conformance.reports", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    engine.filters |= {"uncoloured": _uncoloured, "address": _address, "linked": _linked, "quoted": shlex.join}
    page = engine.get_template("report.html.jinja").render(
        report=report,
        run=report.run,
        tone=TONES.get(report.judgement.exit_code, "open"),
        counts=_counts(report.run),
        families=_families(report.run.records),
        marks=MARKS,
        responses=RESPONSES,
        lines=LINES,
    )
    return printable(page)


def _counts(run: Run) -> list[tuple[Verdict, int]]:
    """The number of checks for each verdict that occurs."""
    found = Counter(record.verdict for record in run.records)
    return [(verdict, found[verdict]) for verdict in Verdict if found[verdict]]


def _families(records: Iterable[Record]) -> dict[str, list[Record]]:
    """The checks by family, the first word of their ids."""
    found: dict[str, list[Record]] = {}
    for record in records:
        found.setdefault(record.id.partition("-")[0], []).append(record)
    return found


def _uncoloured(text: str) -> str:
    """A log without the escape codes of a terminal."""
    return Text.from_ansi(text).plain


def _address(reference: str) -> str:
    """The address of an upstream reference such as vllm#41745; empty for any other text."""
    found = UPSTREAM.fullmatch(reference)
    return f"https://github.com/vllm-project/vllm/issues/{found[1]}" if found else ""


def _linked(text: str) -> Markup:
    """A text with its addresses as links."""
    parts = enumerate(LINK.split(text))
    return Markup("").join(Markup('<a href="{0}">{0}</a>').format(p) if odd % 2 else escape(p) for odd, p in parts)
