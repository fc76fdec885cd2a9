"""``qualify figure``: acceptance and speedup of recorded evidence as a picture."""

from __future__ import annotations

import argparse
from pathlib import Path

from conformance.commands.output.documents import require_folder_of, write
from conformance.commands.parsers import Subparsers, add_command, add_evidence
from conformance.judging.verdict import ExitCode
from conformance.reports.source import Source
from conformance.run.session import Options, open_session


def add_to(commands: Subparsers) -> None:
    """Declare the subcommand."""
    parser = add_command(commands, "figure", "draw acceptance and speedup of recorded evidence as SVG", run)
    add_evidence(parser)
    parser.add_argument("--into", type=Path, metavar="FILE", required=True, help="file to write")


def run(options: argparse.Namespace) -> int:
    """Draw the figures with their intervals, floors and noise."""
    from conformance.reports import figure  # matplotlib takes a second to import, and only this needs it

    require_folder_of(options.into)
    session = open_session(Options(evidence=options.evidence, recorded_only=True), Path.cwd())
    source, header = Source(session.evidence, session.profile), session.header
    caption = f"{header.pair} on {header.hardware}, vLLM {header.vllm}, {header.started[:10]}"
    write(options.into, figure.as_svg(source.load, source.floors, caption))
    return ExitCode.QUALIFIED
