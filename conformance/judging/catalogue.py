"""The list of all checks, read from their declarations."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from conformance import PACKAGE
from conformance.judging.check import Check, declaration
from conformance.profile.profile import INCLUDED


def catalogue() -> tuple[Check, ...]:
    """Every check declared in ``conformance/test_*.py``, cheap families first.

    Raises:
        ValueError: two checks have the same id.
    """
    checks = []
    for path in sorted(PACKAGE.glob("test_*.py")):
        module = importlib.import_module(f"conformance.{path.stem}")
        checks += [check for value in vars(module).values() if (check := declaration(value))]
    ids = [check.id for check in checks]
    if twice := {id for id in ids if ids.count(id) > 1}:
        raise ValueError(f"check ids used twice: {', '.join(sorted(twice))}")
    return tuple(sorted(checks, key=lambda check: check.order))


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
