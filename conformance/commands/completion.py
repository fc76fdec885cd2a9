"""``qualify completion``: what a shell reads to complete the command's words, made from its parser."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import shtab

from conformance import FIXTURES
from conformance.commands.parsers import Subparsers, add_command
from conformance.judging.verdict import ExitCode

SHELLS = ("bash", "fish", "zsh")
FOLDERS = ("DIR", "A", "B")
TABLES = {"hardware": "hardware", "pair": "models"}  # an option that takes a name: the folder of fixtures that has it

FISH_FILES = r"__fish_complete_path (commandline -ct) | string match -r '.*(?:/|[.]toml)(?:\t.*)?$'"


def add_to(commands: Subparsers, make: Callable[[str], str]) -> None:
    """Declare the subcommand; ``make`` gives the script of a shell."""

    def run(options: argparse.Namespace) -> int:
        print(make(options.shell))
        return ExitCode.QUALIFIED

    parser = add_command(commands, "completion", "print the script by which a shell completes this command", run)
    parser.add_argument("shell", choices=SHELLS, help="shell that reads the script")


def script(parser: argparse.ArgumentParser, commands: Subparsers, default: str, shell: str) -> str:
    """The script for one of ``SHELLS``; it completes the words of the default command without its name too.

    Names of hardware and pairs are those that fixtures have now.
    """
    for action in commands.choices[default]._get_optional_actions():
        if action.dest != "help":
            parser._add_action(action)
    for command in commands.choices.values():
        for action in command._actions:
            if action.dest in TABLES:
                action.complete = _names(action.dest)  # type: ignore[attr-defined]
            elif action.metavar in FOLDERS:
                action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
            elif action.metavar == "FILE" or action.type is Path:
                action.complete = shtab.FILE  # type: ignore[attr-defined]
    return shtab.complete(parser, shell)


def _names(option: str) -> dict[str, Any]:
    """In shtab's form: the names that an option knows, or a TOML file."""
    names = " ".join(sorted(_stems(option)))
    function = f"_qualify_{option}_or_file"  # shtab's bash treats what is called so as file names
    files = 'compgen -f -X "!*.toml" -- "$1"; compgen -d -- "$1"'
    preamble = {
        "bash": f'{function}() {{ compgen -W "{names}" -- "$1"; {files}; }}',
        "fish": f"function {function}; printf '%s\\n' {names}; {FISH_FILES}; end",
        "zsh": f"{function}() {{ compadd -- {names}; _files -g '*.toml' }}",
    }
    return {"bash": function, "fish": f"({function})", "zsh": function, "preamble": preamble}


def _stems(option: str) -> Iterator[str]:
    return (path.stem for path in (FIXTURES / TABLES[option]).glob("*.toml"))
