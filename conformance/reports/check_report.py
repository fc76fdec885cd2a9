"""One check of a recorded run in a terminal: its verdict, its requests, both answers side by side, lines of logs."""

from __future__ import annotations

import io
from dataclasses import asdict

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from conformance.evidence.journal import record_to_json
from conformance.judging.verdict import Record
from conformance.reports.drill_down import Case, DrillDown, Side
from conformance.reports.sanitize import json_text, printable
from conformance.reports.terminal import PLAIN_WIDTH, STYLES, response_lines, safe, value_against_bound

FORMAT = 1
SIDE_BY_SIDE = 100  # columns from which on two answers stand beside each other


def as_text(record: Record, drill: DrillDown, evidence: str, *, width: int | None = None, colour: bool = False) -> str:
    """The check for a reader. Without colours, >>> <<< mark where the answers differ first."""
    out = io.StringIO()
    console = Console(
        file=out, width=width or PLAIN_WIDTH, force_terminal=colour, no_color=not colour, highlight=False, emoji=False
    )
    console.print(Text.assemble((record.verdict, STYLES[record.verdict]), safe(f" {record.id}  {record.claim}")))
    console.print(safe(record.sentence))
    for finding in record.findings:
        console.print(safe(f"{finding.verdict}: {value_against_bound(finding)}"))
    if record.waiver:
        console.print(safe(f"waived: {record.waiver}"))
    for diagnosis in record.diagnoses:
        console.print(safe(f"known failure {diagnosis.id} ({diagnosis.upstream}): {diagnosis.advice}"))
    for line in response_lines(record):
        console.print(safe(line))
    for case in drill.cases:
        _show_case(console, case, colour)
    if drill.left:
        console.print(safe(f"\n{drill.left} more cases are in the files below"))
    for excerpt in drill.excerpts:
        console.print(safe(f"\nLines of {evidence}/{excerpt.file}:", "bold"))
        console.print(safe(Text.from_ansi(excerpt.lines).plain))
    if record.details:
        console.print(safe("\nWhat was written at the end:", "bold"))
        console.print(safe(Text.from_ansi(record.details).plain))
    console.print()
    for file in drill.files:
        console.print(safe(f"Evidence: {evidence}/{file}"), soft_wrap=True)
    return "".join(f"{line.rstrip()}\n" for line in out.getvalue().splitlines())


def as_json(record: Record, drill: DrillDown, evidence: str) -> str:
    """The same for programs, valid against reports/check.schema.json."""
    document = {"format": FORMAT, "evidence": evidence, "record": record_to_json(record), "drill_down": asdict(drill)}
    return json_text(document)


def _show_case(console: Console, case: Case, colour: bool) -> None:
    console.print(safe(f"\nRequest {case.id}:", "bold"))
    if case.curl:
        console.print(safe(case.curl), soft_wrap=True)  # in one line, so that it can be copied
    if case.expected:
        console.print(safe(f"expected: {case.expected}"))
    answers: list[RenderableType] = [_marked(side, colour) for side in case.sides]
    if console.width >= SIDE_BY_SIDE and len(answers) == 2:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for side in case.sides:
            table.add_column(side.name, ratio=1, overflow="fold")
        table.add_row(*answers)
        console.print(table)
        return
    for side, answer in zip(case.sides, answers, strict=True):
        console.print(safe(f"{side.name}:", "bold"))
        console.print(answer)


def _marked(side: Side, colour: bool) -> Text:
    if not side.differing:
        return safe(side.shared)
    mark = side.differing if colour else f">>>{side.differing}<<<"
    return Text.assemble(printable(side.shared), (printable(mark), "bold reverse red"), printable(side.rest))
