"""Where a subcommand's result goes: stdout, a document with markers, or a file."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from conformance.errors import UsageError
from conformance.reports.markdown import between
from conformance.reports.terminal import PICTURE_WIDTH, as_svg, screen

FORMAT = 1  # of the JSON documents that commands make


def show(options: argparse.Namespace, **forms: Callable[[], str]) -> None:
    """Print the result in the form that was asked for."""
    print(forms[options.form](), end="")


def show_and_draw(options: argparse.Namespace, title: str, table: Callable[..., str], json: Callable[[], str]) -> None:
    """Print the result for this terminal or for programs, and draw the picture that was asked for.

    Raises:
        UsageError: the picture cannot be written.
    """
    form = screen(sys.stdout.isatty())
    show(options, table=lambda: table(**form), json=json)
    if options.picture:
        write(options.picture, as_svg(table(width=PICTURE_WIDTH, colour=True), title))


def print_to_stderr(text: str) -> None:
    """Print progress beside the result."""
    print(text, end="", file=sys.stderr, flush=True)


def put_between(document: Path, begin: str, end: str, table: str) -> None:
    """Write the table between its markers.

    Raises:
        UsageError: the document cannot be read or written, or lacks the markers.
    """
    write(document, with_table(document, begin, end, table))


def with_table(document: Path, begin: str, end: str, table: str) -> str:
    """The document's text with the table between its markers.

    Raises:
        UsageError: the document cannot be read, or lacks the markers.
    """
    try:
        text = document.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UsageError(f"{document} cannot be read ({error}); name a document that has the markers.") from None
    return between(text, begin, end, table, str(document))


def require_folder_of(file: Path) -> None:
    """Refuse a file that could not be written after all the work.

    Raises:
        UsageError: its folder does not exist.
    """
    if not file.parent.is_dir():
        raise UsageError(f"{file} cannot be written: {file.parent} is not a folder; create it, or name another file.")


def write(file: Path, text: str) -> None:
    """Write a file that the user named.

    Raises:
        UsageError: it cannot be written.
    """
    with writing(file):
        file.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def writing(file: Path) -> Iterator[None]:
    """Turn a failure to write this file into one sentence.

    Raises:
        UsageError: the file cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise UsageError(f"{file} cannot be written ({error.strerror}); mend that, or name another file.") from None
