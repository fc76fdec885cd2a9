"""``qualify cli-reference``: the options of every subcommand as Markdown, for docs/cli.md."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator

from conformance.commands.output.documents import put_between
from conformance.commands.parsers import Subparsers, add_command, add_forms
from conformance.judging.verdict import ExitCode

BEGIN, END = "<!-- command line: begin -->", "<!-- command line: end -->"


def add_to(commands: Subparsers, make: Callable[[], str]) -> None:
    """Declare the subcommand; ``make`` gives the text."""

    def run(options: argparse.Namespace) -> int:
        if options.into:
            put_between(options.into, BEGIN, END, make())
        else:
            print(make(), end="")
        return ExitCode.QUALIFIED

    parser = add_command(commands, "cli-reference", "print the options of every subcommand as Markdown", run)
    add_forms(parser, into=True)


def as_markdown(commands: Subparsers) -> str:
    """A section for each subcommand, a table for each group of options."""
    return "\n".join(
        f"## `qualify {name}`\n\n{parser.description}\n\n{''.join(_tables(parser))}"
        for name, parser in commands.choices.items()
    )


def _tables(parser: argparse.ArgumentParser) -> Iterator[str]:
    for group in parser._action_groups:
        actions = [action for action in group._group_actions if action.dest != "help"]
        if actions:
            title = "arguments" if group.title == "positional arguments" else group.title
            rows = "".join(f"| {_words(action)} | {_help(action)} |\n" for action in actions)
            yield f"| {title} | |\n|---|---|\n{rows}\n"


def _words(action: argparse.Action) -> str:
    if action.choices:
        value = "\\|".join(map(str, action.choices))
    else:
        value = "" if action.nargs == 0 else str(action.metavar or action.dest.upper())
    return f"`{' '.join(filter(None, (', '.join(action.option_strings), value)))}`"


def _help(action: argparse.Action) -> str:
    return (action.help or "").replace("|", "\\|")
