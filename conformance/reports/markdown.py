"""The report as Markdown, short enough for a comment on a pull request; details are folded."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

from conformance.errors import UsageError
from conformance.judging.verdict import ExitCode, Finding, Record
from conformance.reports.report import Report
from conformance.reports.sanitize import printable

SIGNS = {ExitCode.QUALIFIED: "✅", ExitCode.NOT_QUALIFIED: "❌", ExitCode.INSTRUMENT: "❌"}
LONGEST = 300  # characters of a sentence in a table
# A backslash makes these signs ordinary characters. "@" and "#" would still mention people and issues, which a word
# joiner (U+2060) prevents.
ESCAPES = str.maketrans({**{sign: f"\\{sign}" for sign in "\\`*_[]|~"}, "@": "@\u2060", "#": "#\u2060", "\n": " "})
COLUMNS = ("", "check", "claim", "value", "floor", "interval", "n")


def as_markdown(report: Report) -> str:
    """The verdict, the checks that did not pass and why, then all checks and the environment."""
    run = report.run
    every = (row for record in run.records for row in _rows(record))
    parts = [
        f"### {SIGNS.get(report.judgement.exit_code, '⚠️')} {plain(report.judgement.sentence)}",
        _subject(report),
        *(f"- **ERROR** of the run: {plain(problem)}" for problem in run.problems),
        _figures(report),
        _not_passed(report),
        *(f"- cannot be shown: {plain(problem)}" for problem in report.problems),
        folded(f"All {len(run.records)} checks", table(COLUMNS, every)),
        folded("Environment", _environment(report)),
    ]
    return printable("\n\n".join(filter(None, parts)) + "\n")


def _subject(report: Report) -> str:
    run, header = report.run, report.header
    words = f"{run.pair} on {run.hardware}, level {run.level}, vLLM {header.vllm or 'of unknown version'}"
    return f"{plain(words)}, {header.started}"


def _figures(report: Report) -> str:
    rows = [
        (row.figure, f"{row.value:.3f}", f"{row.low:.3f} to {row.high:.3f}", f"{row.floor:.4g}" if row.floor else "")
        for _, row in report.figures
    ]
    return table(("figure", "value", "95 % interval", "floor"), rows) if rows else ""


def _not_passed(report: Report) -> str:
    rows = [(f"**{r.verdict}**", r.id, plain(r.claim), _why(r)) for group in report.remarkable for r in group]
    return table(("", "check", "claim", "what was found"), rows) if rows else ""


def _why(record: Record) -> str:
    known = [f"known failure {each.id} ({each.upstream}): {each.advice}" for each in record.diagnoses]
    waived = [f"waived: {record.waiver}"] if record.waiver else []
    return "<br>".join(plain(said) for said in (record.sentence, *waived, *known))


def _rows(record: Record) -> Iterable[Sequence[str]]:
    """One row for each finding; only the first one names the check."""
    whose = str(record.verdict), record.id, plain(record.claim)
    for number, finding in enumerate(record.findings or (Finding(record.verdict, "", "", ""),)):
        interval = "{:.3f} to {:.3f}".format(*finding.interval) if finding.interval else ""
        seen = plain(finding.value), plain(finding.floor), interval, "" if finding.n is None else str(finding.n)
        yield (*(whose if number == 0 else ("", "", "")), *seen)


def _environment(report: Report) -> str:
    facts = {**report.about, **report.facts}
    return table(("", ""), ((plain(name), plain(value)) for name, value in facts.items()))


def folded(summary: str, body: str) -> str:
    """A section that a reader can open."""
    return f"<details>\n<summary>{summary}</summary>\n\n{body}\n\n</details>"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; its cells are markup already."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [columns, ["---"] * len(columns), *rows])


def plain(text: str) -> str:
    """A text without markup and mentions, in one line."""
    short = text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
    return html.escape(short, quote=False).translate(ESCAPES)


def between(document: str, begin: str, end: str, table: str, name: str) -> str:
    """The document with the text between two markers replaced.

    Raises:
        UsageError: the document lacks the markers.
    """
    head, found, rest = document.partition(begin)
    _, closed, tail = rest.partition(end)
    if not found or not closed:
        raise UsageError(f"{name} lacks the markers {begin} and {end} that the table goes between.")
    return f"{head}{begin}\n{table}{end}{tail}"
