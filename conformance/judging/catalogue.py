"""The list of all checks, read from their declarations."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from conformance import PACKAGE
from conformance.errors import UsageError
from conformance.judging.check import Check, declaration
from conformance.profile.profile import INCLUDED


def catalogue() -> tuple[Check, ...]:
    """Every check declared in ``conformance/test_*.py``, cheap families first.

    Raises:
        UsageError: two checks have the same id.
    """
    checks: dict[str, Check] = {}
    places: dict[str, str] = {}
    for path in sorted(PACKAGE.glob("test_*.py")):
        for name, value in vars(importlib.import_module(f"conformance.{path.stem}")).items():
            if check := declaration(value):
                place = f"{path.name}::{name}"
                if check.id in checks:
                    twice = f"check id {check.id} stands twice, as {places[check.id]} and {place}"
                    raise UsageError(f"{twice}; give one of them a free number of its family.")
                checks[check.id], places[check.id] = check, place
    return tuple(sorted(checks.values(), key=lambda check: check.order))


def node_of(id: str) -> str:
    """The check as ``pytest --pyargs`` names it: its module and its function.

    Raises:
        KeyError: there is no such check.
    """
    for path in sorted(PACKAGE.glob("test_*.py")):
        for name, value in vars(importlib.import_module(f"conformance.{path.stem}")).items():
            if (check := declaration(value)) and check.id == id:
                return f"conformance.{path.stem}::{name}"
    raise KeyError(id)


def at_level(checks: Sequence[Check], level: str) -> tuple[Check, ...]:
    """The checks that a level runs: its own, and those of the levels that it includes."""
    return tuple(check for check in checks if check.level in (*INCLUDED[level], level))
