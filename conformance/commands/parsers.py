"""How a subcommand declares its words: its parser, and the forms in which it tells its result."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from conformance.run.options import OUTPUT

FOR_PROGRAMS = "for programs"
Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
Run = Callable[[argparse.Namespace], int]


def add_command(commands: Subparsers, name: str, help: str, run: Run) -> argparse.ArgumentParser:
    """A subcommand; ``run`` gets its options and returns the exit code."""
    parser = commands.add_parser(name, help=help, description=f"{help[0].upper()}{help[1:]}.", allow_abbrev=False)
    parser.set_defaults(run=run)
    return parser


def add_forms(parser: argparse.ArgumentParser, *, into: bool = False, **helps: str) -> None:
    """Let the user choose another form of the result than the table, or a document that the table goes into."""
    output = _output(parser)
    forms = output.add_mutually_exclusive_group()
    for name, what in helps.items():
        forms.add_argument(f"--{name}", dest="form", action="store_const", const=name, help=what)
    if into:
        forms.add_argument(
            "--into", type=Path, metavar="FILE", help="write the table between the markers in this document"
        )
    parser.set_defaults(form="table")


def add_evidence(parser: argparse.ArgumentParser, help: str = "folder that an earlier run recorded") -> None:
    """The folder of one recorded run."""
    parser.add_argument("evidence", type=Path, metavar="DIR", help=help)


def add_judging(parser: argparse.ArgumentParser) -> None:
    """The options of commands that judge: the forms of the table of verdicts."""
    add_forms(parser, json="the result as JSON on stdout, the table on stderr")
    output = _output(parser)
    add_picture(parser)
    output.add_argument("-v", "--verbose", action="store_true", help="show pytest's own account of every check")


def add_picture(parser: argparse.ArgumentParser) -> None:
    """Let the user keep what the terminal shows as a picture."""
    help = "write what the terminal shows as an SVG picture too"
    _output(parser).add_argument("--picture", type=Path, metavar="FILE", help=help)


def _output(parser: argparse.ArgumentParser) -> argparse._ActionsContainer:
    """The parser's group of output options, or the parser itself where it has none."""
    return next((group for group in parser._action_groups if group.title == OUTPUT), parser)
