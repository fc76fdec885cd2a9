"""Qualify a vLLM server for Gemma 4 with multi-token prediction: observe it, judge it, and work with recorded runs.

exit codes: 0 qualified (every check that was asked for passed), 1 not qualified, 2 usage, 3 inconclusive,
4 instrument error, 5 nothing inspected; compare: 1 where B is worse; doctor: 1 where a run cannot succeed; sign and
verify: 0 signed or authentic, 1 not authentic, 2 usage
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from functools import partial

from conformance.commands import (
    advise,
    bisect,
    calibrate,
    catalogue,
    cli_reference,
    combine,
    compare,
    completion,
    doctor,
    export,
    figure,
    graph_table,
    history,
    keep_regressions,
    list,
    moe_table,
    pack,
    qualify,
    recipe,
    rejudge,
    releases,
    show,
    sign,
    verify,
)
from conformance.commands.output.closed_output import outlive_reader
from conformance.commands.parsers import Subparsers
from conformance.judging.verdict import ExitCode
from conformance.run.refusal import REFUSALS, report_refusal
from conformance.serving.installed import installed_here

SUBCOMMANDS = (
    *(
        qualify,
        doctor,
        recipe,
        rejudge,
        show,
        list,
        history,
        bisect,
        compare,
        combine,
        sign,
        verify,
        pack,
        figure,
        export,
    ),
    *(catalogue, moe_table, graph_table, releases, advise, calibrate, keep_regressions),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code. Without arguments it is the program, and takes those of the program."""
    if arguments is None:
        outlive_reader()
    parser, commands = make_parser()
    words = [*(sys.argv[1:] if arguments is None else arguments)]
    if not words or words[0] not in (*commands.choices, "-h", "--help", "--version"):
        words.insert(0, qualify.NAME)
    options = parser.parse_args(words)
    try:
        return int(options.run(options))
    except REFUSALS as error:
        return report_refusal(error)
    except KeyboardInterrupt:  # pytest heeds the first one
        if arguments is None:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # a third one would change the exit code
        print("qualify: interrupted twice: servers are ended in the background; --resume goes on", file=sys.stderr)
        if arguments is None:  # threads may wait for servers, which end when this process has ended
            sys.stdout.flush()
            os._exit(ExitCode.INSTRUMENT)
        return ExitCode.INSTRUMENT


def make_parser() -> tuple[argparse.ArgumentParser, Subparsers]:
    """The parser of the command, and its subcommands' parsers by name."""
    parser = argparse.ArgumentParser(
        prog="qualify", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=version())
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for subcommand in SUBCOMMANDS:
        subcommand.add_to(commands)
    # These two describe the command itself, so they need its parser.
    completion.add_to(commands, partial(completion.script, parser, commands, qualify.NAME))
    cli_reference.add_to(commands, partial(cli_reference.as_markdown, commands))
    return parser, commands


def version() -> str:
    """The version of the suite, and of the vLLM beside it."""
    installed = installed_here()
    return f"gemma4-mtp-conformance {installed.suite or 'not installed'}, vLLM {installed.vllm or 'not installed'}"
