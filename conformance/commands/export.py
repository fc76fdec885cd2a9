"""``qualify export``: the measured curve of recorded evidence, in the form of a public registry."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from conformance.commands.documents import write, writing
from conformance.commands.parsers import Subparsers, add_command, add_evidence
from conformance.errors import UsageError
from conformance.evidence.folder import MANIFEST, is_finished, sha256
from conformance.judging.verdict import ExitCode
from conformance.reports import inferencex
from conformance.reports.source import Source
from conformance.run.session import Options, open_session

FORMATS = ("inferencex",)


def add_to(commands: Subparsers) -> None:
    """Declare the subcommand."""
    parser = add_command(commands, "export", "write the speed by concurrency of recorded evidence for a registry", run)
    add_evidence(parser)
    parser.add_argument("--format", choices=FORMATS, required=True, help="the registry: the rows of InferenceX")
    parser.add_argument(
        "--into", type=Path, metavar="FOLDER", help="write a file for each row into this folder (default: print a list)"
    )


def run(options: argparse.Namespace) -> int:
    """Tell the speeds at each concurrency, with MTP and without.

    Raises:
        UsageError: the evidence is not finished or has no load, or a file cannot be written.
    """
    found = rows(options.evidence)
    if options.into is None:
        print(as_json(found), end="")
        return ExitCode.QUALIFIED
    with writing(options.into):
        options.into.mkdir(parents=True, exist_ok=True)
    for row in found:
        write(options.into / inferencex.file_name(row), as_json(row))
    return ExitCode.QUALIFIED


def rows(evidence: Path) -> list[inferencex.Row]:
    """The rows of finished evidence.

    Raises:
        UsageError: the evidence is not finished or has no load.
    """
    session = open_session(Options(evidence=evidence, recorded_only=True), Path.cwd())
    directory = session.evidence.directory
    if not is_finished(directory):
        raise UsageError(
            f"{directory} is unfinished, so its hash may change; qualify --resume {directory} finishes it."
        )
    source = Source(session.evidence, session.profile)
    if not source.holds("load"):
        raise UsageError(f"{directory} has no measured speeds; name evidence of level qualify.")
    digest = sha256(directory / MANIFEST)
    return list(inferencex.rows(source.load, session.profile, session.header, digest))


def as_json(value: Any) -> str:
    """JSON as it is printed and written."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
