"""``qualify compare``: two recorded runs, judged again and compared."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from conformance.commands.output.documents import show
from conformance.commands.parsers import FOR_PROGRAMS, Subparsers, add_command, add_forms
from conformance.reports.comparison import rendering
from conformance.reports.comparison.changes import Comparison, Side, compare
from conformance.reports.source import Source
from conformance.reports.terminal import screen
from conformance.run.judge_evidence import judge_again
from conformance.run.session import Options, Session, open_session


def add_to(commands: Subparsers) -> None:
    """Declare the subcommand."""
    parser = add_command(commands, "compare", "compare a recorded run with an earlier one", run)
    parser.add_argument("before", type=Path, metavar="A", help="folder of the earlier run")
    parser.add_argument("after", type=Path, metavar="B", help="folder of the run that must be no worse")
    add_forms(parser, markdown="for a pull request", json=FOR_PROGRAMS)


def run(options: argparse.Namespace) -> int:
    """Print how the second run differs from the first; 1 where it is worse."""
    found = compare_runs(options.before, options.after)
    show(
        options,
        table=lambda: rendering.as_text(found, **screen(sys.stdout.isatty())),
        markdown=lambda: rendering.as_markdown(found),
        json=lambda: rendering.as_json(found),
    )
    return found.exit_code


def compare_runs(before: Path, after: Path) -> Comparison:
    """How the second run differs from the first, both by today's floors and waivers.

    Raises:
        UsageError: a folder holds no evidence; nothing is judged then.
        ObservationError: the evidence is damaged or cannot be judged.
    """
    sessions = [_open(directory) for directory in (before, after)]
    return compare(*map(_judge, sessions))


def _open(directory: Path) -> Session:
    return open_session(Options(evidence=directory, recorded_only=True), Path.cwd())


def _judge(session: Session) -> Side:
    return Side(*judge_again(session.evidence.directory), Source(session.evidence, session.profile))
