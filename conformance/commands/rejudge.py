"""``qualify rejudge``: judge recorded evidence with today's floors and waivers; no server is started."""

from __future__ import annotations

import argparse

from conformance.commands.parsers import Subparsers, add_command, add_evidence, add_judging
from conformance.commands.qualify import judge
from conformance.run.options import CERTIFY, SHOW, add_to_command


def add_to(commands: Subparsers) -> None:
    """Declare the subcommand."""
    parser = add_command(commands, "rejudge", "judge recorded evidence again, with today's floors and waivers", run)
    add_evidence(parser)
    add_to_command(parser, [CERTIFY, SHOW])
    add_judging(parser)


def run(options: argparse.Namespace) -> int:
    """Judge, and write the reports again."""
    words = [
        f"--evidence={options.evidence}",
        "--recorded-only",
        *["--certify"] * options.certify,
        f"--show={options.show}",
    ]
    return judge(words, options)
