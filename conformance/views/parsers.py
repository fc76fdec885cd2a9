"""How the parser reads generated and recorded answers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True)
class Tried:
    """Some properties: the number of tried examples, and a sentence for each property that does not hold."""

    trials: int
    broken: tuple[str, ...]
    source: str = "observations/parsers.json"
    note: str = ""

    def objections(self) -> tuple[str, ...]:
        """A sentence for each property that does not hold."""
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
        """Arguments of these kinds, written by the chat template and parsed again."""
        return _result({f"{kind} arguments": self.facts["round_trip"][kind] for kind in kinds})

    def published(self) -> Tried:
        """Published instances of JSON schemas, written and parsed in the same way."""
        return _result({"published arguments": self.facts["published"]})

    def chunking(self) -> Tried:
        """Recorded answers, cut into deltas in many ways."""
        return _result(self.facts["chunking"])

    def any_text(self) -> Tried:
        """Arbitrary text, which no model would write."""
        return _result({"arbitrary text": self.facts["any_text"]})


def _result(found: Mapping[str, Mapping[str, Any]]) -> Tried:
    broken = [f"{name}: {_describe(each['counterexample'])}" for name, each in found.items() if each["counterexample"]]
    return Tried(sum(each["examples"] for each in found.values()), tuple(broken))


def _describe(example: Mapping[str, Any]) -> str:
    """The counterexample as a sentence."""
    if "problem" in example:
        return f"{example['problem']}, for the text {example['text']!r}"
    if "deltas" in example:
        found, whole = _json(example["found"]), _json(example["whole"])
        return f"in deltas {example['deltas']} the result is {found}, in one piece it is {whole}"
    found = example["found"]
    calls = found["calls"] if not (found["content"] or found["reasoning"]) else found
    expected = _json(example["expected"])
    return f"{example['text']} is parsed as {_json(calls)} ({example['way']}) where {expected} is expected"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
