"""The verdict table for a terminal or, in plain characters, for a log."""

from __future__ import annotations

import io
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypedDict

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from conformance.judging.verdict import ExitCode, Finding, Judgement, Record, Run, Verdict
from conformance.reports.sanitize import printable

STYLES = {
    Verdict.PASS: "green",
    Verdict.FAIL: "bold red",
    Verdict.INCONCLUSIVE: "bold yellow",
    Verdict.UNSUPPORTED: "cyan",
    Verdict.WAIVED: "magenta",
    Verdict.ERROR: "bold red",
}
PLAIN_WIDTH = 140
DETAIL_LINES = 15


class Screen(TypedDict):
    """The screen for tables: its width, or None for any, and whether it has colours."""

    width: int | None
    colour: bool


def screen(terminal: bool) -> Screen:
    """The width and colours of a terminal; a file or a pipe has neither."""
    return {"width": shutil.get_terminal_size().columns if terminal else None, "colour": terminal}


def render(run: Run, judgement: Judgement, *, width: int | None = None, colour: bool = False) -> str:
    """The table, an explanation of every check that did not pass, the judgement, and the path of the evidence.

    ``colour`` is for terminals; without it the text has neither escape codes nor box-drawing characters.
    """
    out = io.StringIO()
    console = Console(
        file=out, width=width or PLAIN_WIDTH, force_terminal=colour, no_color=not colour, highlight=False, emoji=False
    )
    if run.records:
        console.print(_table(run, box.SIMPLE_HEAD if colour else box.ASCII2))
    for group in run.not_passed():
        _explain(console, group, run)
    for note in _notes(run):
        console.print(safe(note, "dim"))
    style = "bold green" if judgement.exit_code is ExitCode.QUALIFIED else "bold red"
    console.print(safe(judgement.sentence, style), soft_wrap=True)
    console.print(safe(f"Evidence: {run.evidence}"), soft_wrap=True)
    return "".join(f"{line.rstrip()}\n" for line in out.getvalue().splitlines())


def picture(run: Run, judgement: Judgement) -> str:
    """The same as an SVG picture, for documents."""
    console = Console(record=True, file=io.StringIO(), width=PLAIN_WIDTH, force_terminal=True)
    # A document must not show the folders of a machine.
    shown = replace(run, evidence=f"evidence/{Path(run.evidence).name}")
    console.print(Text.from_ansi(render(shown, judgement, width=PLAIN_WIDTH, colour=True)), soft_wrap=True)
    # Rich's SVG loads fonts from a server; without the network any monospaced font will do.
    svg = console.export_svg(title="scripts/qualify", unique_id="verdict")
    return re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)


def safe(text: str, style: str = "") -> Text:
    """The text without terminal commands and without Rich's markup."""
    return Text(printable(text), style=style)


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
    lines += [f"known failure {d.id} ({d.upstream}): {d.advice}" for d in first.diagnoses]
    lines += [f"| {Text.from_ansi(line).plain}" for line in first.details.strip().splitlines()[-DETAIL_LINES:]]
    for line in lines:
        console.print(Padding(safe(line), (0, 0, 0, 4), expand=False))
    console.print()


def _notes(run: Run) -> list[str]:
    """The notes of all checks, each once."""
    notes = dict.fromkeys(f"{record.id}: {f.note}" for record in run.records for f in record.findings if f.note)
    return [*notes, ""] if notes else []
