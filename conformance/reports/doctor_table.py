"""What ``qualify doctor`` found, for a terminal and for programs."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from rich.console import Console
from rich.table import Table
from rich.text import Text

from conformance.judging.verdict import ExitCode
from conformance.reports.sanitize import json_text
from conformance.reports.terminal import PLAIN_WIDTH, safe

FORMAT = 1
STYLES = {"OK": "green", "WARN": "bold yellow", "FAIL": "bold red"}


class Line(Protocol):
    """One thing that was looked at."""

    @property
    def name(self) -> str: ...
    @property
    def state(self) -> str: ...
    @property
    def said(self) -> str: ...
    @property
    def mend(self) -> str: ...


@dataclass(frozen=True)
class Diagnosed:
    """The lines about one machine and one run."""

    hardware: str
    pair: str
    level: str
    lines: Sequence[Line]
    exit_code: ExitCode

    @property
    def sentence(self) -> str:
        """The result in words."""
        subject = f"{self.pair} on {self.hardware} at level {self.level}"
        names = {state: [line.name for line in self.lines if line.state == state] for state in STYLES}
        if names["FAIL"]:
            return f"This machine cannot run {subject}: {', '.join(names['FAIL'])}."
        warned = f"; look at {', '.join(names['WARN'])}" if names["WARN"] else ""
        return f"This machine can run {subject}{warned}."


def as_text(found: Diagnosed, *, width: int | None = None, colour: bool = False) -> str:
    """A line for each thing, what to mend below it, and a sentence."""
    out = io.StringIO()
    console = Console(
        file=out, width=width or PLAIN_WIDTH, force_terminal=colour, no_color=not colour, highlight=False, emoji=False
    )
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("state", no_wrap=True)
    table.add_column("name", no_wrap=True)
    table.add_column("said", overflow="fold")
    for line in found.lines:
        table.add_row(Text(str(line.state), STYLES[line.state]), line.name, safe(line.said))
        if line.mend and line.state != "OK":
            table.add_row("", "", safe(f"mend: {line.mend}", "bold"))
    console.print(table)
    console.print()
    console.print(safe(found.sentence, "bold red" if found.exit_code else "bold green"))
    return "".join(f"{line.rstrip()}\n" for line in out.getvalue().splitlines())


def as_json(found: Diagnosed) -> str:
    """The same for programs, valid against reports/doctor.schema.json."""
    rows = [{"name": e.name, "state": str(e.state), "said": e.said, "mend": e.mend} for e in found.lines]
    about = {"hardware": found.hardware, "pair": found.pair, "level": found.level}
    return json_text(
        {"format": FORMAT, "exit_code": int(found.exit_code), "sentence": found.sentence, **about, "lines": rows}
    )
