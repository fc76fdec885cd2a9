"""``qualify qualify``, the default: observe what is not recorded yet, and judge; with ``--plan`` only plan it."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Sequence

from conformance.commands.output.documents import require_folder_of, show, write
from conformance.commands.parsers import Subparsers, add_command, add_judging
from conformance.judging.verdict import ExitCode
from conformance.reports import plan
from conformance.reports.report_json import as_json
from conformance.reports.terminal import picture
from conformance.run.judge_evidence import run_checks
from conformance.run.options import HOW_MUCH, PLAN, QUIET, RUN, SHOW, add_to_command, pytest_arguments
from conformance.run.plan_run import plan_run

NAME = "qualify"


def add_to(commands: Subparsers) -> None:
    """Declare the subcommand."""
    parser = add_command(commands, NAME, "observe and judge (the default)", run)
    groups = add_to_command(parser, (*RUN, SHOW, QUIET, PLAN))
    groups[HOW_MUCH].add_argument(
        "-n", "--workers", type=int, metavar="N", help="judge in N processes that share the servers (pytest-xdist)"
    )
    add_judging(parser)


def run(options: argparse.Namespace) -> int:
    """Observe and judge, or print the plan."""
    if options.plan:
        planned = plan_run(options)
        show(options, table=lambda: plan.as_text(*planned), json=lambda: plan.as_json(*planned))
        return ExitCode.QUALIFIED
    return judge([*pytest_arguments(options), *["-n", str(options.workers)] * bool(options.workers)], options)


def judge(words: Sequence[str], options: argparse.Namespace) -> int:
    """Run pytest over the package's own checks; with ``--json`` its table goes to stderr and the result to stdout."""
    if options.picture:
        require_folder_of(options.picture)
    as_document = options.form == "json"
    quiet = contextlib.redirect_stdout(sys.stderr) if as_document else contextlib.nullcontext()
    with quiet:
        code, result = run_checks([*["-v"] * options.verbose, *words])
    if as_document and result.found:
        print(as_json(*result.found), end="")
    if options.picture and result.found:
        write(options.picture, picture(*result.found, result.figures, show=options.show))
    return code
