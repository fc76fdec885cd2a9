"""``qualify history``: verdicts and figures of a machine over dates."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from conformance.commands.output.documents import show
from conformance.commands.parsers import FOR_PROGRAMS, Subparsers, add_command, add_forms
from conformance.judging.verdict import ExitCode
from conformance.reports.runs_table import find_runs, history_as_json, history_as_text
from conformance.reports.terminal import screen


def add_to(commands: Subparsers) -> None:
    """Declare the subcommand."""
    parser = add_command(commands, "history", "show verdicts and figures of recorded runs over dates", run)
    parser.add_argument("folders", type=Path, nargs="+", metavar="DIR", help="folder of a recorded run, or of several")
    add_forms(parser, json=FOR_PROGRAMS)


def run(options: argparse.Namespace) -> int:
    """Print a table for each machine, pair and level."""
    found = find_runs(options.folders)
    form = screen(sys.stdout.isatty())
    show(options, table=lambda: history_as_text(found, **form), json=lambda: history_as_json(found))
    return ExitCode.QUALIFIED
