"""Tool calls and thoughts that ``max_tokens`` cut."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

from conformance.errors import ObservationError
from conformance.formats.json_files import parse_json
from conformance.profile.arms import MTP
from conformance.views.served.replies import OK, Facts, incomplete


@dataclass(frozen=True)
class CutAnswers:
    """The ``cut_answers`` observation."""

    whole: Mapping[str, Facts]  # by question
    rows: tuple[Facts, ...]  # of the server with MTP
    without: tuple[Facts, ...]
    source: str = "observations/cut_answers.json"

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Self:
        """Read the observation.

        Raises:
            ObservationError: the whole answers have no call or no thought, so nothing could be cut.
        """
        choices = {name: reply["choices"][0] for name, reply in facts["whole"].items()}
        if not choices["call"].get("calls") or not choices["thought"].get("reasoning"):
            raise ObservationError("the whole answers have no tool call or no thought, so nothing could be cut")
        arms = facts["arms"]
        return cls(facts["whole"], tuple(arms[MTP]), tuple(row for arm in arms if arm != MTP for row in arms[arm]))

    def requests(self, question: str) -> int:
        """The number of cut answers with MTP to a question: "call" or "thought"."""
        return len(self._of(self.rows, question))

    def objections(self, question: str) -> list[str]:
        """A sentence for each of them that looks finished, or holds a call that was not made."""
        return [problem for row in self._of(self.rows, question) for problem in self._problems(row)]

    def note(self, question: str) -> str:
        """The number of answers without MTP that have the same problems."""
        rows = self._of(self.without, question)
        wrong = sum(bool(list(self._problems(row))) for row in rows)
        return f"without MTP, {wrong} of {len(rows)} cut answers are wrong in this way"

    @staticmethod
    def _of(rows: tuple[Facts, ...], question: str) -> list[Facts]:
        return [row for row in rows if row["question"] == question]

    def _problems(self, row: Facts) -> Iterator[str]:
        reply, name = row["reply"], name_of(row)
        calls = self.whole[row["question"]]["choices"][0].get("calls", [])
        if reply["status"] == OK and calls and reply["choices"][0].get("calls") == calls:
            return  # only the end of the answer is missing, so the calls are right, however it is said to end
        yield from incomplete(name, reply, row["max_tokens"])
        for place, call in enumerate(reply["choices"][0].get("calls", []) if reply["choices"] else []):
            if place >= len(calls):
                yield f"{name} has a call that the whole answer does not have: {_shown(call)}"
            elif call["name"] != calls[place]["name"]:
                yield f"{name} has the call {_shown(call)} where {calls[place]['name']} is called"
            elif not _part_of(call["arguments"], calls[place]["arguments"]):
                yield f"{name} has the call {_shown(call)} where {_shown(calls[place])} is right"


def _part_of(cut: str, whole: str) -> bool:
    """Whether cut arguments hold only what the whole ones hold: a part of their text, or some of their values."""
    if whole.startswith(cut):
        return True
    try:
        found, right = parse_json(cut), parse_json(whole)
    except ValueError:
        return False
    return isinstance(found, dict) and all(name in right and right[name] == value for name, value in found.items())


def _shown(call: Facts) -> str:
    return f"{call['name']}({call['arguments']})"


def name_of(row: Facts) -> str:
    """What sentences call a cut answer."""
    return f"the {row['question']} cut after {row['max_tokens']} tokens{', streamed,' if row['stream'] else ''}"
