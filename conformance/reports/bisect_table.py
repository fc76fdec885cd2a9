"""The result of a search over releases, for a terminal and for programs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from conformance.reports.sanitize import json_text, printable

FORMAT = 1


class Step(Protocol):
    """One release that was judged."""

    @property
    def release(self) -> str: ...
    @property
    def verdict(self) -> str: ...
    @property
    def sentence(self) -> str: ...
    @property
    def evidence(self) -> str: ...


class Found(Protocol):
    """The result of a search."""

    @property
    def check(self) -> str: ...
    @property
    def good(self) -> str: ...
    @property
    def bad(self) -> str: ...
    @property
    def unknown(self) -> Sequence[str]: ...
    @property
    def steps(self) -> Sequence[Step]: ...
    @property
    def sentence(self) -> str: ...


def plan_text(check: str, level: str, releases: Sequence[str], ready: Sequence[str], environments: Path) -> str:
    """What a search would take, before it begins."""
    most = 2 + math.ceil(math.log2(len(releases) - 1))
    return (
        f"{check} is judged at level {level} on at most {most} of {len(releases)} releases: {', '.join(releases)}.\n"
        f"Environments are in {environments}; ready: {', '.join(ready) or 'none'}.\n"
    )


def as_text(found: Found) -> str:
    """The steps in their order, and the sentence."""
    rows = [f"{each.release:<10} {each.verdict:<13} {printable(each.sentence)}\n" for each in found.steps]
    return "".join(rows) + f"\n{found.sentence}\n"


def as_json(found: Found) -> str:
    """The same for programs, valid against reports/bisect.schema.json."""
    names = ("release", "verdict", "sentence", "evidence")
    steps = [{name: str(getattr(each, name)) for name in names} for each in found.steps]
    about = {"check": found.check, "good": found.good, "bad": found.bad, "unknown": list(found.unknown)}
    return json_text({"format": FORMAT, "sentence": found.sentence, **about, "steps": steps})
