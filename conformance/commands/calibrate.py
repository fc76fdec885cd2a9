"""``qualify calibrate``: how often the suite's intervals hold known acceptance rates, on the real server."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from datetime import UTC, datetime

from conformance.commands.output.documents import print_to_stderr, put_between, show, with_table
from conformance.commands.parsers import FOR_PROGRAMS, Subparsers, add_command, add_forms
from conformance.judging.verdict import ExitCode
from conformance.profile.profile import load_profile
from conformance.reports import coverage_table
from conformance.reports.progress import Progress
from conformance.run.interval_coverage import published_coverage
from conformance.run.options import RUN, add_to_command
from conformance.run.session import DEFAULT_PAIR, detect_hardware


def add_to(commands: Subparsers) -> None:
    """Declare the subcommand."""
    parser = add_command(commands, "calibrate", "measure how often the intervals hold known rates", run)
    add_to_command(parser, [option for option in RUN if option.name in ("hardware", "pair")])
    parser.add_argument("--trials", type=int, default=80, metavar="N", help="at each vector of rates (default: 80)")
    parser.add_argument("--prompts", type=int, default=16, metavar="N", help="in each trial (default: 16)")
    add_forms(parser, into=True, json=FOR_PROGRAMS)


def run(options: argparse.Namespace) -> int:
    """Make the trials; print the coverage, or put it into a document.

    Not qualified where CAL-01 would fail, or where the coverage is outside of what is published as sound.
    """
    if options.into:
        with_table(options.into, coverage_table.BEGIN, coverage_table.END, "")  # before an hour is spent on it
    profile = load_profile(options.hardware or detect_hardware(), options.pair or DEFAULT_PAIR, "qualify")
    sizes = replace(profile.sizes, calibration_trials=options.trials, calibration_prompts=options.prompts)
    found = published_coverage(replace(profile, sizes=sizes), Progress(print_to_stderr, terminal=False))
    today, wrong = datetime.now(UTC).date(), found.calibration.wrong()
    table = coverage_table.as_markdown(found, today)
    if options.into:
        put_between(options.into, coverage_table.BEGIN, coverage_table.END, table)
    else:
        show(options, table=lambda: table, json=lambda: coverage_table.as_json(found, today))
    print("".join(f"{sentence}\n" for sentence in wrong), end="", file=sys.stderr)
    return ExitCode.NOT_QUALIFIED if wrong else ExitCode.QUALIFIED
