"""``qualify verify``: whether evidence is what was signed; what it is worth is another question."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from conformance.commands.output.documents import FORMAT, show
from conformance.commands.parsers import FOR_PROGRAMS, Subparsers, add_command, add_evidence, add_forms
from conformance.evidence import attestation
from conformance.evidence.folder import REPORTS
from conformance.judging.verdict import ExitCode
from conformance.reports.sanitize import json_text, printable


def add_to(commands: Subparsers) -> None:
    """Declare the subcommand."""
    parser = add_command(commands, "verify", "compare evidence with what was signed", run)
    add_evidence(parser, "folder with attestation.json and its signature")
    parser.add_argument(
        "--signers", type=Path, required=True, metavar="FILE", help="OpenSSH's allowed signers: whose key is whose"
    )
    parser.add_argument("--identity", metavar="ID", help="who must have signed (default: any of the signers)")
    add_forms(parser, json=FOR_PROGRAMS)


def run(options: argparse.Namespace) -> int:
    """Print the signer and the signed result; 1 where the evidence is not authentic."""
    document = {"format": FORMAT, "evidence": str(options.evidence)}
    try:
        found = attestation.authenticate(options.evidence, options.signers, options.identity)
    except attestation.NotAuthentic as error:
        print(f"Not authentic: {printable(str(error))}", file=sys.stderr)  # which may be anybody's words
        document |= {"authentic": False, "reason": str(error)}
        show(options, table=str, json=lambda: json_text(document))
        return ExitCode.NOT_QUALIFIED
    result, reports = found.statement["predicate"]["result"], _reports(options.evidence)
    lines = [f"Authentic: {options.evidence}, signed by {found.signer}, says {result}"]
    if reports:
        lines.append(f"Not covered: {', '.join(reports)}; qualify rejudge {options.evidence} makes them again")
    document |= {"authentic": True, "signer": found.signer, "result": result, "not_covered": reports}
    show(options, table=lambda: "".join(f"{line}\n" for line in lines), json=lambda: json_text(document))
    return ExitCode.QUALIFIED


def _reports(evidence: Path) -> list[str]:
    """Those that lie beside the evidence."""
    return [name for name in REPORTS if (evidence / name).is_file()]
