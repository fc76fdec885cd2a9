"""The declaration of a fault: what is done to the suite, and what it must say about it, within what time."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pytest

GROUPS = {
    "server": "The server",
    "machine": "The machine",
    "user": "The user",
    "checkpoint": "The checkpoint",
}
CODES = {0: "qualified", 1: "not qualified", 2: "usage", 3: "inconclusive", 4: "instrument error"}


@dataclass(frozen=True)
class Fault:
    """One fault. ``says`` is a part of what the user reads; "…" stands for any text."""

    name: str
    group: str
    done: str  # a sentence
    verdict: str  # of the check that needs what the fault spoils; "-" if nothing is judged
    code: int  # the exit code of the command, negative for that of a signal
    seconds: float
    says: str
    quick: bool = False  # whether scripts/test runs it without --all

    def matches(self, text: str) -> bool:
        """Whether the text says what it must."""
        pattern = ".*".join(map(re.escape, self.says.split("…")))
        return re.search(pattern, " ".join(text.split()), re.DOTALL) is not None


FAULTS: dict[str, Fault] = {}


def fault(
    name: str, *, group: str, done: str, verdict: str, code: int, seconds: float, says: str, quick: bool = False
) -> pytest.MarkDecorator:
    """Declare the fault that a test, or one parameter of it, is about.

    Raises:
        ValueError: another test has this name, or the group is unknown.
    """
    if name in FAULTS or group not in GROUPS:
        raise ValueError(f"fault {name!r} in group {group!r} is declared twice, or its group is unknown")
    FAULTS[name] = made = Fault(name, group, done, verdict, code, seconds, says, quick)
    return pytest.mark.fault(made)
