"""Several runs as one table: for a terminal, as Markdown, as JSON."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from conformance.judging.stats import Estimate
from conformance.judging.verdict import ExitCode, Verdict
from conformance.reports import markdown
from conformance.reports.report import GRAVEST
from conformance.reports.sanitize import json_text, printable
from conformance.reports.terminal import safe
from conformance.views.fleet import LENGTH, LIMIT, MINIMUM, Group, Row

FORMAT = 1
SHOWN = 4  # ids of checks with the same verdict
PLAIN_WIDTH = 160
MARK = "!"


def as_text(groups: Sequence[Group], *, width: int | None = None, colour: bool = False) -> str:
    """A heading, a table and remarks for each group."""
    out = io.StringIO()
    console = Console(
        file=out, width=width or PLAIN_WIDTH, force_terminal=colour, no_color=not colour, highlight=False, emoji=False
    )
    for group in groups:
        console.print(safe(_heading(group), "bold"), soft_wrap=True)
        table = Table(box=box.SIMPLE_HEAD if colour else box.ASCII2, pad_edge=False, padding=(0, 1, 0, 0))
        for name in _columns(group):
            table.add_column(name, overflow="fold", no_wrap=name == LENGTH)
        for row in group.rows:
            table.add_row(*map(safe, _cells(row, group)), style="bold red" if row.marks or row.problem else "")
        console.print(table)
        for line in _remarks(group):
            console.print(safe(line), soft_wrap=True)
        console.print()
    return "".join(f"{line.rstrip()}\n" for line in out.getvalue().splitlines())


def as_markdown(groups: Sequence[Group]) -> str:
    """The same for a comment or a wiki."""
    parts = []
    for group in groups:
        rows = ([markdown.plain(cell) for cell in _cells(row, group)] for row in group.rows)
        parts += [f"### {markdown.plain(_heading(group))}", markdown.table(_columns(group), rows)]
        parts += [f"- {markdown.plain(line)}" for line in _remarks(group)]
    return printable("\n\n".join(parts) + "\n")


def as_json(groups: Sequence[Group]) -> str:
    """The same for programs, valid against reports/fleet.schema.json."""
    document = {"format": FORMAT, "groups": [_document(group) for group in groups]}
    return json_text(document)


def _document(group: Group) -> dict[str, Any]:
    rows = [asdict(row) | {"exit_code": int(row.exit_code), "verdict": row.verdict} for row in group.rows]
    return {"pair": group.pair, "level": group.level, "runs": rows}


def _heading(group: Group) -> str:
    counts = Counter(row.verdict for row in group.rows)
    came_to = ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common())
    about = f"{group.pair}, level {group.level}" if group.pair else "of no known pair"
    return f"{about}: {came_to}"


def _columns(group: Group) -> list[str]:
    return ["", "run", "hardware", "machine", "vLLM", "verdict", *group.figures, "best k", "not passed"]


def _cells(row: Row, group: Group) -> list[str]:
    """One line of the table. Acceptance length has its interval; for speedups only JSON has room for intervals."""
    figures = [_figure(name, row.figures.get(name)) for name in group.figures]
    about = row.evidence, row.hardware, row.machine, row.vllm, row.verdict
    last = "" if row.best_k is None else str(row.best_k)
    return [MARK if row.marks or row.problem else "", *about, *figures, last, not_passed(row.not_passed)]


def _figure(name: str, found: Estimate | None) -> str:
    if found is None:
        return ""
    return str(found) if name == LENGTH else f"{found.value:.2f}"


def not_passed(checks: Mapping[str, Verdict]) -> str:
    """The ids by verdict, the worst first, up to ``SHOWN`` each."""
    said = []
    for verdict in sorted(set(checks.values()), key=GRAVEST.index):
        ids = [id for id, found in checks.items() if found is verdict]
        more = f" and {len(ids) - SHOWN} more" if len(ids) > SHOWN else ""
        said.append(f"{verdict} {', '.join(ids[:SHOWN])}{more}")
    return "; ".join(said)


def _remarks(group: Group) -> Iterator[str]:
    """What makes single runs different, why a run has no verdict, and the rules of marking."""
    for row in group.rows:
        reason = row.sentence if row.exit_code is ExitCode.INSTRUMENT else ""
        for said in filter(None, (row.problem, reason, *row.marks)):
            yield f"{row.evidence}: {said}"
    judged = sum(not row.problem for row in group.rows)
    if judged >= MINIMUM:
        yield f"Marked with {MARK}: a verdict that differs from the majority, or a modified z-score beyond {LIMIT}."
    elif judged:
        yield f"Values are compared with each other if {MINIMUM} or more runs were judged."
