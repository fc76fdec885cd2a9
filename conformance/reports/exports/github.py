"""A run for GitHub Actions: annotations for what did not pass; the step summary is the Markdown report."""

from __future__ import annotations

from collections.abc import Iterator

from conformance.judging.verdict import Judgement, Run, Verdict
from conformance.reports.sanitize import printable

KINDS = {
    Verdict.FAIL: "error",
    Verdict.ERROR: "error",
    Verdict.INCONCLUSIVE: "warning",
    Verdict.WAIVED: "notice",
    Verdict.UNSUPPORTED: "notice",
}
LONGEST = 1000  # characters of one annotation


def workflow_commands(run: Run, judgement: Judgement) -> str:
    """A workflow command for each check that did not pass and each problem of the run, and the judgement."""
    return "".join(f"{line}\n" for line in _commands(run, judgement))


def _commands(run: Run, judgement: Judgement) -> Iterator[str]:
    for record in run.records:
        if record.verdict in KINDS:
            title = f"{record.verdict} {record.id} {record.claim}"
            yield f"::{KINDS[record.verdict]} title={_property(title)}::{_message(record.waiver or record.sentence)}"
    for problem in run.problems:
        yield f"::error title=ERROR of the run::{_message(problem)}"
    yield f"::notice title=qualify::{_message(judgement.sentence)}"


def _message(text: str) -> str:
    """The text of a command: nothing in it ends the line or begins another command."""
    return printable(text[:LONGEST]).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _message(text).replace(":", "%3A").replace(",", "%2C")
