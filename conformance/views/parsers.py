"""What the parser made of generated and recorded answers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True)
class Tried:
    """Some properties: how many examples were tried, and a sentence for each that is broken."""

    trials: int
    broken: tuple[str, ...]
    source: str = "observations/parsers.json"
    note: str = ""

    def objections(self) -> tuple[str, ...]:
        """The properties that do not hold."""
        return self.broken


@dataclass(frozen=True)
class Parsers:
    """The ``parsers`` observation."""

    facts: Mapping[str, Any]

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Self:
        """Read the observation."""
        return cls(facts)

    def round_trip(self, *kinds: str) -> Tried:
        """Arguments of these kinds, written by the template and parsed again."""
        return _tried({f"{kind} arguments": self.facts["round_trip"][kind] for kind in kinds})

    def published(self) -> Tried:
        """Instances that others published, the same way."""
        return _tried({"published arguments": self.facts["published"]})

    def chunking(self) -> Tried:
        """Recorded answers, cut into deltas in every way."""
        return _tried(self.facts["chunking"])

    def any_text(self) -> Tried:
        """Text that no model would write."""
        return _tried({"arbitrary text": self.facts["any_text"]})


def _tried(found: Mapping[str, Mapping[str, Any]]) -> Tried:
    broken = [f"{name}: {_said(each['counterexample'])}" for name, each in found.items() if each["counterexample"]]
    return Tried(sum(each["examples"] for each in found.values()), tuple(broken))


def _said(example: Mapping[str, Any]) -> str:
    """The counterexample as a sentence."""
    if "problem" in example:
        return f"{example['problem']}, from {example['text']!r}"
    if "deltas" in example:
        return f"in deltas {example['deltas']} it gives {_short(example['found'])}, whole {_short(example['whole'])}"
    found = example["found"]
    calls = found["calls"] if not (found["content"] or found["reasoning"]) else found
    return f"{example['text']} gives {_short(calls)} ({example['way']}), where {_short(example['expected'])} went in"


def _short(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
