"""How the parser reads generated and recorded answers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from conformance.errors import NotRecorded

SOURCE = "observations/parsers.json"
HARMS = ("value changed", "lost in silence", "leaked mark", "refused visibly")  # the worst comes first
LONGEST_SENTENCE = 400  # characters of an example; the evidence has the rest


@dataclass(frozen=True)
class Tried:
    """Some properties: the number of tried examples, and a sentence for each property that does not hold."""

    trials: int
    broken: tuple[str, ...]
    source: str = SOURCE
    note: str = ""

    def objections(self) -> tuple[str, ...]:
        """A sentence for each property that does not hold."""
        return self.broken


@dataclass(frozen=True)
class KindSeen:
    """One kind of finding: harm and cause, the number of answers, and the smallest example as a sentence."""

    kind: str
    answers: int
    sentence: str


@dataclass(frozen=True)
class Answers:
    """Answers of one property, with the kinds of findings."""

    facts: Mapping[str, Any]
    source: str = SOURCE

    @property
    def trials(self) -> int:
        """The number of answers."""
        return int(self.facts["examples"])

    @property
    def note(self) -> str:
        """How many answers were shown as text; none if there were none."""
        refused = self.facts["refused"]
        return f"{refused} of {self.trials} answers gave no call, but their text is visible" if refused else ""

    def kinds(self) -> list[KindSeen]:
        """The kinds, the worst harm first."""
        rows = [KindSeen(row["kind"], row["answers"], _example(row["example"])) for row in self.facts["kinds"]]
        return sorted(rows, key=lambda row: (HARMS.index(row.kind.partition(": ")[0]), row.kind))


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

    def answers(self, name: str) -> Answers:
        """The answers of one property of ``inside_vllm.answer_trials``.

        Raises:
            NotRecorded: an older suite has recorded the evidence.
        """
        if "answers" not in self.facts:
            raise NotRecorded(f"{SOURCE} is older than this check: it has no answers of the kind {name!r}")
        return Answers(self.facts["answers"][name])


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


def _example(example: Mapping[str, Any]) -> str:
    """The smallest example of a kind as a sentence."""
    found, wanted = example["found"], example["expected"]
    if isinstance(found, Mapping) and not (found["content"] or found["reasoning"]):
        found = found["calls"]
    given = _json(example["text"])
    sentence = f"{given} is parsed as {_json(found)} ({example['way']}) where {_json(wanted)} is expected"
    return sentence if len(sentence) <= LONGEST_SENTENCE else sentence[: LONGEST_SENTENCE - 1] + "…"
