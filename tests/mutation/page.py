"""The section of docs/detection.md about mutants, from the record and from the reasons of those that survived."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pydantic
from support import records
from support.paths import ROOT

from conformance.formats import toml_tables
from mutation.survivors import KILLED, SURVIVED, TIMED_OUT, UNTESTED, Mutant

RECORD = ROOT / "docs" / "results" / "mutation.json"
REASONS = Path(__file__).with_name("reasons.toml")
SURVIVORS = ROOT / "docs" / "results" / "mutants.md"
COLUMNS = (KILLED, SURVIVED, UNTESTED, TIMED_OUT)


@pydantic.dataclasses.dataclass(frozen=True, config=toml_tables.STRICT)
class Reason:
    """Why some mutants survive: ``mutants`` are patterns that are searched in "module.function: was -> now"."""

    why: str
    mutants: tuple[str, ...]


@pydantic.dataclasses.dataclass(frozen=True, config=toml_tables.STRICT)
class _File:
    reason: tuple[Reason, ...]


@cache
def load_reasons() -> tuple[Reason, ...]:
    """Read the file.

    Raises:
        UsageError: the file is wrong; the sentence names the key.
    """
    return toml_tables.read(REASONS, _File).reason


def reason_of(mutant: Mutant) -> str:
    """Why a mutant survives, by the first pattern that fits; the last entry fits every mutant."""
    return next(each.why for each in load_reasons() if any(re.search(word, mutant.text) for word in each.mutants))


def recorded(path: Path = RECORD) -> dict[str, Any]:
    """The last run; empty if there is none."""
    return dict(records.read(path) or {})


def left(record: Mapping[str, Any]) -> list[Mutant]:
    """The mutants that no test killed."""
    return [Mutant(**row) for row in record.get("left", [])]


def score(counts: Mapping[str, int]) -> float:
    """The share of all mutants that a test killed; one that timed out, or that no test reaches, is not killed."""
    return counts.get(KILLED, 0) / sum(counts.values())


def section(record: Mapping[str, Any]) -> str:
    """A section of docs/detection.md."""
    head = "## Mutants of the code that judges\n\n"
    if not record:
        return head + "No run is recorded yet. `scripts/mutate` makes one.\n"
    every: Counter[str] = Counter()
    for row in record["modules"].values():
        every.update(row)
    text = head + (
        f"`scripts/mutate` changes `judging/` and `views/` in {every.total()} small ways, one at a time, and runs the "
        f"fast tests that reach the change. They notice **{score(every):.1%}** ({record['date']}; mutmut "
        f"{record['mutmut']}, {record['machine']}, {record['seconds'] / 60:.0f} minutes of work). A mutant that runs "
        "out of time, or that no test reaches, is not noticed. mutmut leaves out the bodies of properties and what "
        "stands outside functions.\n\n"
    )
    text += f"| module | mutants | {' | '.join(COLUMNS)} | noticed |\n|---|---|---|---|---|---|---|\n"
    for module, row in sorted(record["modules"].items(), key=lambda item: score(item[1])):
        numbers = " | ".join(str(row.get(status, 0)) for status in COLUMNS)
        text += f"| `{module}` | {sum(row.values())} | {numbers} | {score(row):.0%} |\n"
    why = Counter(map(reason_of, left(record)))
    text += "\nWhy the others survive; [each of them](results/mutants.md) with its reason:\n\n"
    text += "| reason | mutants |\n|---|---|\n"
    return text + "".join(f"| {reason} | {count} |\n" for reason, count in why.most_common())


def survivors(mutants: Sequence[Mutant]) -> str:
    """The page that lists what no test killed."""
    text = "# Mutants that no fast test kills\n\n"
    text += "Made by `scripts/mutate`. The reasons are in `tests/mutation/reasons.toml`.\n"
    rows: dict[str, list[Mutant]] = {each.why: [] for each in load_reasons()}
    for each in mutants:
        rows[reason_of(each)].append(each)
    return text + "".join(f"\n## {why}\n\n{''.join(map(_line, found))}" for why, found in rows.items() if found)


def _line(mutant: Mutant) -> str:
    return f"    {mutant.text}" + ("\n" if mutant.status == SURVIVED else f" ({mutant.status})\n")
