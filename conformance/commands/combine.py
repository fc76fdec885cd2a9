"""``qualify combine``: several recorded runs as one table, outliers marked."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from conformance.commands.output.documents import print_to_stderr, show
from conformance.commands.parsers import FOR_PROGRAMS, Subparsers, add_command, add_forms
from conformance.reports import fleet_table
from conformance.reports.progress import Progress
from conformance.reports.terminal import screen
from conformance.run.judge_fleet import combine, worst


def add_to(commands: Subparsers) -> None:
    """Declare the subcommand."""
    parser = add_command(commands, "combine", "print several runs as one table, with outliers marked", run)
    parser.add_argument("evidence", type=Path, nargs="+", metavar="DIR", help="folders that earlier runs recorded")
    add_forms(parser, markdown="for a comment or a wiki", json=FOR_PROGRAMS)


def run(options: argparse.Namespace) -> int:
    """Judge the runs again and print them; the exit code is the gravest of theirs."""
    groups = combine(options.evidence, Progress(print_to_stderr, terminal=False))
    show(
        options,
        table=lambda: fleet_table.as_text(groups, **screen(sys.stdout.isatty())),
        markdown=lambda: fleet_table.as_markdown(groups),
        json=lambda: fleet_table.as_json(groups),
    )
    return worst(groups)
