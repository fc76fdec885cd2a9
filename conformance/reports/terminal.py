"""The end of a run for a terminal or, in plain characters, for a log."""

from __future__ import annotations

import io
import re
import shlex
import shutil
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypedDict

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from conformance.judging.response import RESPONSES
from conformance.judging.verdict import ExitCode, Finding, Judgement, Record, Run, Verdict
from conformance.reports.charts import Row
from conformance.reports.sanitize import printable

STYLES = {
    Verdict.PASS: "green",
    Verdict.FAIL: "bold red",
    Verdict.INCONCLUSIVE: "bold yellow",
    Verdict.UNSUPPORTED: "cyan",
    Verdict.WAIVED: "magenta",
    Verdict.ERROR: "bold red",
}
SENTENCE_STYLES = {
    ExitCode.QUALIFIED: "bold green",
    ExitCode.INCONCLUSIVE: "bold yellow",
    ExitCode.NOTHING: "bold yellow",
}
PLAIN_WIDTH = 140
PICTURE_WIDTH = 100  # columns of a picture
DETAIL_LINES = 15
INDENT = 4
BRIEF_LINES = 4  # of a sentence or a log, in the summary
BRIEF_FINDINGS = 3  # of a check, in the summary
SUMMARY, ALL, FAILURES, FIGURES = SHOWN = "summary", "all", "failures", "figures"
FOUND_WANTING = (Verdict.FAIL, Verdict.WAIVED, Verdict.INCONCLUSIVE)
EXPLAINED = (Verdict.FAIL, Verdict.ERROR, Verdict.INCONCLUSIVE)  # in the summary; the others are only named


class Screen(TypedDict):
    """The screen for tables: its width, or None for any, and whether it has colours."""

    width: int | None
    colour: bool


def screen(terminal: bool) -> Screen:
    """The width and colours of a terminal; a file or a pipe has neither."""
    return {"width": shutil.get_terminal_size().columns if terminal else None, "colour": terminal}


def render(
    run: Run,
    judgement: Judgement,
    figures: Sequence[Row] = (),
    *,
    show: str = SUMMARY,
    width: int | None = None,
    colour: bool = False,
) -> str:
    """The end of a run: the judgement, the checks by verdict, what did not pass, the key figures, and the evidence.

    ``show`` is one of ``SHOWN``. ``colour`` is for terminals; without it the text has neither escape codes nor
    box-drawing characters.
    """
    out = io.StringIO()
    console = Console(
        file=out, width=width or PLAIN_WIDTH, force_terminal=colour, no_color=not colour, highlight=False, emoji=False
    )
    style = SENTENCE_STYLES.get(judgement.exit_code, "bold red")
    # A log keeps the sentence in one line, for those who search it.
    console.print(safe(judgement.sentence, style), soft_wrap=width is None)
    if run.records:
        console.print(_counts(run))
    console.print()
    if show == ALL and run.records:
        console.print(_table(run, box.SIMPLE_HEAD if colour else box.ASCII2))
    if show in (ALL, FAILURES):
        for group in run.not_passed():
            _explain(console, group, run)
    if show == SUMMARY:
        _summarise(console, run)
    if figures and show != FAILURES:
        console.print(_figures(figures))
        console.print()
    if show in (ALL, FIGURES):
        for note in _notes(run):
            console.print(safe(note, "dim"))
    console.print(safe(f"Evidence: {run.evidence}"), soft_wrap=True)
    return "".join(f"{line.rstrip()}\n" for line in out.getvalue().splitlines())


def picture(run: Run, judgement: Judgement, figures: Sequence[Row] = (), *, show: str = SUMMARY) -> str:
    """The same as an SVG picture, for documents."""
    # A document must not show the folders of a machine.
    shown = replace(run, evidence=f"evidence/{Path(run.evidence).name}")
    return as_svg(render(shown, judgement, figures, show=show, width=PLAIN_WIDTH, colour=True), "qualify", PLAIN_WIDTH)


def as_svg(text: str, title: str, width: int = PICTURE_WIDTH) -> str:
    """What a terminal of this width shows of a coloured text, as an SVG picture."""
    console = Console(record=True, file=io.StringIO(), width=width, force_terminal=True)
    console.print(Text.from_ansi(text), overflow="fold")
    # Rich's SVG loads fonts from a server; without the network any monospaced font will do.
    svg = console.export_svg(title=title, unique_id="verdict")
    return re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)


def safe(text: str, style: str = "") -> Text:
    """The text without terminal commands and without Rich's markup."""
    return Text(printable(text), style=style)


def _counts(run: Run) -> Text:
    """The number of checks by verdict, and of those that did not run."""
    parts = [
        Text.assemble(f"{len(found)} ", (verdict, STYLES[verdict]))
        for verdict in Verdict
        if (found := run.with_verdict(verdict))
    ]
    if missing := len(run.expected) - len(run.records):
        parts.append(Text(f"{missing} of {len(run.expected)} did not run"))
    return Text(", ").join(parts)


def _summarise(console: Console, run: Run) -> None:
    """What needs somebody's attention in a few lines each; what is unsupported or waived by name and reason."""
    groups = run.not_passed()
    for verdict in EXPLAINED:
        for group in groups:
            if group[0].verdict is verdict:
                _explain_briefly(console, group, run)
    others = [group for group in groups if group[0].verdict not in EXPLAINED]
    for group in others:
        first = group[0]
        names = ", ".join(record.id for record in group)
        said = textwrap.shorten(f"{names}: {first.waiver or first.sentence}", console.width - 13, placeholder=" ...")
        console.print(Text.assemble((first.verdict, STYLES[first.verdict]), safe(f" {said}")))
    if others:
        console.print()


def _explain_briefly(console: Console, group: Sequence[Record], run: Run) -> None:
    first = group[0]
    for record in group:
        console.print(Text.assemble((record.verdict, STYLES[record.verdict]), safe(f" {record.id}  {record.claim}")))
    for finding in [each for each in first.findings if each.verdict is first.verdict][:BRIEF_FINDINGS]:
        _indent(console, value_against_bound(finding))
    lines = safe(" ".join(first.sentence.split())).wrap(console, console.width - INDENT)
    for wrapped in lines[:BRIEF_LINES]:
        _indent(console, wrapped.plain)
    if len(lines) > BRIEF_LINES:
        _indent(console, "(...)")
    for line in _last_lines(first, BRIEF_LINES):
        _indent(console, line)
    for diagnosis in first.diagnoses:
        _indent(console, f"known failure {diagnosis.id} ({diagnosis.upstream}): {diagnosis.advice}")
    for line in response_lines(first):
        _indent(console, line)
    # Whole however long, so that it can be copied: a Padding would cut it at the width.
    next_command = f"{' ' * INDENT}next: qualify show {shlex.quote(run.evidence)} {first.id}"
    console.print(safe(next_command, "bold"), soft_wrap=True)
    console.print()


def _last_lines(record: Record, most: int) -> list[str]:
    """The last lines of a log or a traceback, without their colours."""
    return [f"| {Text.from_ansi(line).plain}" for line in record.details.strip().splitlines()[-most:]]


def response_lines(record: Record) -> list[str]:
    """How grave it is, and what to do; nothing where the check found nothing, or the evidence does not tell."""
    if record.verdict not in FOUND_WANTING or record.response not in RESPONSES:
        return []
    return [f"severity {record.severity}; response {record.response}: {RESPONSES[record.response]}"]


def value_against_bound(finding: Finding) -> str:
    """The value of a finding with its interval, its bound and its samples."""
    interval = " [{:.3f}, {:.3f}]".format(*finding.interval) if finding.interval else ""
    samples = f", n = {finding.n}" if finding.n is not None else ""
    seen = f"; {finding.power}" if finding.power else ""
    return f"value {finding.value}{interval}, bound {finding.floor}{samples}{seen}"


def _figures(figures: Sequence[Row]) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("figure", "value", "interval", "floor"):
        table.add_column(name, justify="right" if name == "value" else "left", no_wrap=name != "figure")
    for row in figures:
        floor = "" if row.floor is None else f"floor {row.floor:.4g}"
        table.add_row(safe(row.figure), Text(f"{row.value:.3f}", "bold"), f"[{row.low:.3f}, {row.high:.3f}]", floor)
    return table


def _indent(console: Console, text: str) -> None:
    console.print(Padding(safe(text), (0, 0, 0, INDENT), expand=False))


def _table(run: Run, lines: box.Box) -> Table:
    table = Table(box=lines, pad_edge=False, padding=(0, 1, 0, 0) if lines is box.SIMPLE_HEAD else (0, 1))
    table.add_column("id", no_wrap=True)
    table.add_column("claim", min_width=10, ratio=1)
    table.add_column("value", justify="right", no_wrap=True)
    table.add_column("floor", justify="right", no_wrap=True)
    table.add_column("n", justify="right", no_wrap=True)
    table.add_column("interval", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    table.add_column("time", justify="right", no_wrap=True)
    for record in run.records:
        table.add_row(
            record.id,
            safe(record.claim),
            _lines(record, lambda finding: finding.value),
            _lines(record, lambda finding: finding.floor),
            _lines(record, lambda finding: "" if finding.n is None else str(finding.n)),
            _lines(record, lambda finding: "{:.3f} to {:.3f}".format(*finding.interval) if finding.interval else ""),
            Text(record.verdict, style=STYLES[record.verdict]),
            f"{record.seconds:.1f} s",
        )
    return table


def _lines(record: Record, column: Callable[[Finding], str]) -> Text:
    """One line for each finding, so that every draft position is beside its own floor."""
    return safe("\n".join(column(finding) for finding in record.findings))


def _explain(console: Console, group: Sequence[Record], run: Run) -> None:
    first = group[0]
    for record in group:
        console.print(Text.assemble((record.verdict, STYLES[record.verdict]), safe(f" {record.id}  {record.claim}")))
    lines = [first.sentence]
    if first.waiver:
        lines.append(f"waived: {first.waiver}")
    sources = dict.fromkeys(f"{run.evidence}/{f.source}" for record in group for f in record.findings if f.source)
    if sources:
        lines.append("evidence: " + ", ".join(sources))
    upstream = dict.fromkeys(record.upstream for record in group if record.upstream)
    if upstream:
        lines.append("upstream: " + ", ".join(upstream))
    lines += response_lines(first)
    lines += [f"known failure {d.id} ({d.upstream}): {d.advice}" for d in first.diagnoses]
    lines += _last_lines(first, DETAIL_LINES)
    for line in lines:
        _indent(console, line)
    console.print()


def _notes(run: Run) -> list[str]:
    """The notes of all checks and what they see, each once."""
    notes = dict.fromkeys(
        f"{record.id}: {text}" for record in run.records for f in record.findings for text in (f.power, f.note) if text
    )
    return [*notes, ""] if notes else []
