"""``qualify pack``: recorded evidence as one small file that can be judged again elsewhere."""

from __future__ import annotations

import argparse
from pathlib import Path

from conformance.commands.output.documents import require_folder_of, writing
from conformance.commands.parsers import Subparsers, add_command, add_evidence
from conformance.judging.verdict import ExitCode
from conformance.run.judge_releases import LIMIT, pack_release


def add_to(commands: Subparsers) -> None:
    """Declare the subcommand."""
    parser = add_command(commands, "pack", "pack what judging reads of a run into a small file", run)
    add_evidence(parser)
    parser.add_argument("--into", type=Path, metavar="FILE", required=True, help="archive to write (.tar.xz)")
    parser.add_argument(
        "--without",
        nargs="+",
        default=[],
        metavar="OBSERVATION",
        help="leave these out with their checks, where something else than vLLM spoiled them",
    )
    parser.add_argument(
        "--most",
        type=int,
        metavar="KB",
        default=LIMIT // 1000,
        help="size of the archive at most; the largest observations are left out if need be (default: %(default)s)",
    )
    parser.add_argument("--unfinished", action="store_true", help="pack a run that was interrupted too")


def run(options: argparse.Namespace) -> int:
    """Pack, and say which observations were left out."""
    require_folder_of(options.into)
    with writing(options.into):
        left_out = pack_release(
            options.evidence, options.into, options.without, limit=1000 * options.most, unfinished=options.unfinished
        )
    if left_out:
        print(f"Left out, and the checks that need it: {', '.join(left_out)}.")
    return ExitCode.QUALIFIED
