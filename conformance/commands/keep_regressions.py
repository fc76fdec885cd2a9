"""``qualify keep-regressions``: keep what broke the parser in recorded evidence, so that later runs begin with it."""

from __future__ import annotations

import argparse

from conformance import FIXTURES
from conformance.commands.output.documents import FORMAT, show, writing
from conformance.commands.parsers import FOR_PROGRAMS, Subparsers, add_command, add_evidence, add_forms
from conformance.evidence.folder import Evidence, read_header
from conformance.judging.verdict import ExitCode
from conformance.reports.sanitize import json_text
from conformance.workload.parser_cases import REGRESSIONS, keep_regressions


def add_to(commands: Subparsers) -> None:
    """Declare the subcommand."""
    parser = add_command(
        commands, "keep-regressions", "add the inputs that broke the parser to the suite's own cases", run
    )
    add_evidence(parser)
    add_forms(parser, json=FOR_PROGRAMS)


def run(options: argparse.Namespace) -> int:
    """Add the counterexamples that are not there yet.

    Raises:
        UsageError: the folder holds no evidence.
    """
    read_header(options.evidence)
    found = Evidence(options.evidence, recording=False).observe("parsers", dict)
    path = FIXTURES / "prompts" / REGRESSIONS
    with writing(path):
        new = keep_regressions(path, found)
    document = {"format": FORMAT, "file": str(path), "new": new}
    show(options, table=lambda: f"{new} new in {path}\n", json=lambda: json_text(document))
    return ExitCode.QUALIFIED
