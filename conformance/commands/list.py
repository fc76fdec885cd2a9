"""``qualify list``: the recorded runs in a folder."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from conformance.commands.output.documents import show
from conformance.commands.parsers import FOR_PROGRAMS, Subparsers, add_command, add_forms
from conformance.judging.verdict import ExitCode
from conformance.reports.runs_table import find_runs, list_as_json, list_as_text
from conformance.reports.terminal import screen


def add_to(commands: Subparsers) -> None:
    """Declare the subcommand."""
    parser = add_command(commands, "list", "list the recorded runs in folders", run)
    parser.add_argument(
        "folders", type=Path, nargs="*", metavar="DIR", help="folder of recorded runs (default: ./evidence)"
    )
    add_forms(parser, json=FOR_PROGRAMS)


def run(options: argparse.Namespace) -> int:
    """Print when each run began, what it judged and how it ended."""
    usual = Path("evidence")
    found = find_runs(options.folders or ([usual] if usual.is_dir() and any(usual.iterdir()) else []))
    form = screen(sys.stdout.isatty())
    show(options, table=lambda: list_as_text(found, **form), json=lambda: list_as_json(found))
    return ExitCode.QUALIFIED
