"""``qualify combine``: several recorded runs as one table, outliers marked."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from conformance.commands.output.documents import print_to_stderr, put_between, show
from conformance.commands.parsers import FOR_PROGRAMS, Subparsers, add_command, add_forms
from conformance.errors import UsageError
from conformance.judging.verdict import ExitCode
from conformance.reports import fleet_table, sizes_table
from conformance.reports.progress import Progress
from conformance.reports.terminal import screen
from conformance.run.judge_fleet import combine, worst
from conformance.run.judge_sizes import judge_sizes


def add_to(commands: Subparsers) -> None:
    """Declare the subcommand."""
    parser = add_command(commands, "combine", "print several runs as one table, with outliers marked", run)
    parser.add_argument("evidence", type=Path, nargs="+", metavar="DIR", help="folders that earlier runs recorded")
    parser.add_argument(
        "--sizes",
        action="store_true",
        help="show a row for each published size and quantisation; DIR may be an archive, or a folder of archives",
    )
    add_forms(parser, into=True, markdown="for a comment or a wiki", json=FOR_PROGRAMS)


def run(options: argparse.Namespace) -> int:
    """Judge the runs again and print them; the exit code is the gravest of theirs.

    Raises:
        UsageError: a path is wrong, or --into is given without --sizes.
    """
    if options.sizes:
        return _show_sizes(options)
    if options.into:
        raise UsageError("--into writes the matrix of sizes: add --sizes, or leave --into out.")
    groups = combine(options.evidence, Progress(print_to_stderr, terminal=False))
    show(
        options,
        table=lambda: fleet_table.as_text(groups, **screen(sys.stdout.isatty())),
        markdown=lambda: fleet_table.as_markdown(groups),
        json=lambda: fleet_table.as_json(groups),
    )
    return worst(groups)


def _show_sizes(options: argparse.Namespace) -> int:
    """Print or write the matrix of published sizes.

    Raises:
        UsageError: --json is given.
    """
    if options.form == "json":
        raise UsageError("--sizes has no JSON: leave --json out.")
    rows = judge_sizes(options.evidence, Progress(print_to_stderr, terminal=False))
    if options.into:
        put_between(options.into, sizes_table.BEGIN, sizes_table.END, sizes_table.as_markdown(rows))
    else:
        show(
            options,
            table=lambda: "".join(sizes_table.as_text(rows)),
            markdown=lambda: sizes_table.as_markdown(rows),
        )
    return ExitCode.QUALIFIED
