"""``qualify sign``: state what a finished run found, and sign the statement."""

from __future__ import annotations

import argparse
from pathlib import Path

from conformance.commands.output.documents import show
from conformance.commands.parsers import Subparsers, add_command, add_evidence, add_forms
from conformance.evidence import attestation
from conformance.evidence.folder import ATTESTATION
from conformance.judging.verdict import ExitCode
from conformance.reports.sanitize import json_text


def add_to(commands: Subparsers) -> None:
    """Declare the subcommand."""
    parser = add_command(commands, "sign", "sign what a finished run found, with an SSH key", run)
    add_evidence(parser, "folder that a run has finished")
    parser.add_argument("--key", type=Path, required=True, help="an SSH key, or the public half of one in ssh-agent")
    parser.add_argument(
        "--identity", metavar="ID", help="the signer's name as in allowed-signers files; the statement holds it"
    )
    add_forms(parser, json="the statement on stdout")


def run(options: argparse.Namespace) -> int:
    """Write the statement and its signature beside the evidence."""
    statement = attestation.sign(options.evidence, options.key, options.identity)
    said = f"Signed: {options.evidence / ATTESTATION[0]} says {statement['predicate']['result']}\n"
    show(options, table=lambda: said, json=lambda: json_text(statement))
    return ExitCode.QUALIFIED
