"""``qualify show``: what is behind the verdict of one check: requests, answers side by side, lines of logs."""

from __future__ import annotations

import argparse
from pathlib import Path

from conformance.commands.output.documents import show_and_draw
from conformance.commands.parsers import FOR_PROGRAMS, Subparsers, add_command, add_evidence, add_forms, add_picture
from conformance.errors import UsageError
from conformance.formats import toml_tables
from conformance.judging.verdict import ExitCode
from conformance.reports.check_report import as_json, as_text
from conformance.reports.drill_down import drill_down
from conformance.reports.source import Source
from conformance.run.judge_evidence import judge_again
from conformance.run.session import Options, open_session


def add_to(commands: Subparsers) -> None:
    """Declare the subcommand."""
    parser = add_command(commands, "show", "show what is behind the verdict of a check in recorded evidence", run)
    add_evidence(parser)
    parser.add_argument("check", metavar="CHECK", help="id of a check, such as LOSS-01")
    add_forms(parser, json=FOR_PROGRAMS)
    add_picture(parser)


def run(options: argparse.Namespace) -> int:
    """Judge the evidence by today's checks, and print one of them.

    Raises:
        UsageError: there is no such check in this evidence.
    """
    session = open_session(Options(evidence=options.evidence, recorded_only=True), Path.cwd())
    wanted = options.check.upper()
    known = [check.id for check in session.checks]
    if wanted not in known:
        raise UsageError(
            f"{options.check} is no check; qualify catalogue lists them.{toml_tables.nearest(wanted, known)}"
        )
    judged, _ = judge_again(session.evidence.directory)
    found = next((record for record in judged.records if record.id == wanted), None)
    if found is None:
        raise UsageError(f"{wanted} is not in {options.evidence}: the run did not judge it.")
    drill = drill_down(found, Source(session.evidence, session.profile))
    where = str(options.evidence)
    title = f"qualify show {where} {wanted}"
    show_and_draw(
        options, title, lambda **form: as_text(found, drill, where, **form), lambda: as_json(found, drill, where)
    )
    return ExitCode.QUALIFIED
