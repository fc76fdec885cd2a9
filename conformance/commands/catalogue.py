"""``qualify catalogue``: the list of all checks."""

from __future__ import annotations

import argparse

from conformance.commands.output.documents import put_between, show
from conformance.commands.parsers import FOR_PROGRAMS, Subparsers, add_command, add_forms
from conformance.judging.catalogue import catalogue
from conformance.judging.verdict import ExitCode
from conformance.reports import checks_table
from conformance.reports.sanitize import json_text


def add_to(commands: Subparsers) -> None:
    """Declare the subcommand."""
    parser = add_command(commands, "catalogue", "list the checks", run)
    add_forms(parser, into=True, markdown="as the table of docs/checks.md", json=FOR_PROGRAMS)


def run(options: argparse.Namespace) -> int:
    """Print the list, or put its table into a document."""
    checks = catalogue()
    if options.into:
        put_between(options.into, checks_table.BEGIN, checks_table.END, checks_table.as_markdown(checks))
        return ExitCode.QUALIFIED
    show(
        options,
        table=lambda: checks_table.as_text(checks),
        markdown=lambda: checks_table.as_markdown(checks),
        json=lambda: json_text([vars(check) for check in checks]),
    )
    return ExitCode.QUALIFIED
