"""The list of all checks, read from their declarations, and its two printed forms."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from conformance import PACKAGE
from conformance.harness.check import Check, declaration
from conformance.harness.errors import UsageError
from conformance.harness.profile import INCLUDED

BEGIN, END = "<!-- checks: begin -->", "<!-- checks: end -->"


def catalogue() -> tuple[Check, ...]:
    """Every check declared in ``conformance/test_*.py``, cheap families first; ValueError for an id used twice."""
    checks = []
    for path in sorted(PACKAGE.glob("test_*.py")):
        module = importlib.import_module(f"conformance.{path.stem}")
        checks += [check for value in vars(module).values() if (check := declaration(value))]
    ids = [check.id for check in checks]
    if twice := {id for id in ids if ids.count(id) > 1}:
        raise ValueError(f"check ids used twice: {', '.join(sorted(twice))}")
    return tuple(sorted(checks, key=lambda check: check.order))


def at_level(checks: Sequence[Check], level: str) -> tuple[Check, ...]:
    """The checks that a level runs: its own and those of the levels that it includes."""
    return tuple(check for check in checks if check.level in (*INCLUDED[level], level))


def as_text(checks: Sequence[Check]) -> str:
    """One line for each check, aligned."""
    return "".join(f"{check.id:<9} {check.level:<8} {check.claim}\n" for check in checks)


def as_markdown(checks: Sequence[Check]) -> str:
    """The table of README."""
    rows = [f"| {check.id} | {check.claim} | {check.level} | {check.upstream} |\n" for check in checks]
    return "| id | claim | level | upstream |\n|---|---|---|---|\n" + "".join(rows)


def between(document: str, begin: str, end: str, table: str, name: str) -> str:
    """The document with the text between two markers replaced; raises UsageError where they are missing."""
    head, found, rest = document.partition(begin)
    _, closed, tail = rest.partition(end)
    if not found or not closed:
        raise UsageError(f"{name} lacks the markers {begin} and {end} that the table goes between.")
    return f"{head}{begin}\n{table}{end}{tail}"
