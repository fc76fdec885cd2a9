"""Which questions both arms answer rightly."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from conformance.errors import ObservationError
from conformance.formats.canonical_json import same_json
from conformance.formats.decimals import last_number, number
from conformance.formats.json_files import parse_json
from conformance.judging.paired import PairedTable
from conformance.judging.stats import Estimate

SHOWN = 3  # questions that only the arm without MTP answers rightly
_LETTER = re.compile(r"\(?\*{0,2}([A-Z])(?=[.):*]|\s*$)")
_BLOCK = re.compile(r"```(?:json)?\n(.*?)```", re.DOTALL)
_ANNOUNCED = re.compile(r"(?i:answer(?: is|:))\W*([A-Z])\b")

Facts = Mapping[str, Any]


@dataclass(frozen=True)
class Scored:
    """One question, and whether each arm answers it rightly."""

    id: str
    with_mtp: bool
    without: bool
    said: str  # with MTP


@dataclass(frozen=True)
class TaskScore:
    """The ``task_score`` observation."""

    questions: tuple[Scored, ...]
    source: str = "observations/task_score.json"

    @classmethod
    def of(cls, facts: Facts, least: float) -> Self:
        """Read the observation; ``least`` is the score without MTP below which a comparison shows nothing.

        Raises:
            ObservationError: there is no question, or the score without MTP is lower.
        """
        if not facts["questions"]:
            raise ObservationError("no questions, so there is nothing to compare")
        found = cls(tuple(_scored(row) for row in facts["questions"]))
        right, asked = found.table.second, found.table.n
        if right < least * asked:
            raise ObservationError(
                f"the server without MTP answers {right} of {asked} questions rightly, so a loss could not be seen; "
                "ask questions that this model can answer, in a format that the suite reads"
            )
        return found

    @property
    def table(self) -> PairedTable:
        """The right and wrong answers; the first arm is the one with MTP."""
        return PairedTable.of((each.with_mtp, each.without) for each in self.questions)

    def difference(self) -> Estimate:
        """The share of right answers with MTP minus that without."""
        return self.table.difference()

    def note(self) -> str:
        """The table, and the first questions that only the arm without MTP answers rightly."""
        table = self.table
        said = (
            f"right answers with MTP {table.first} of {table.n}, without {table.second}; both {table.both}, "
            f"only with {table.only_first}, only without {table.only_second}, neither {table.neither}"
        )
        lost = [each for each in self.questions if each.without and not each.with_mtp]
        shown = [f"{each.id} (with MTP: {_short(each.said)})" for each in lost[:SHOWN]]
        return said + (f"; lost: {', '.join(shown)}{', …' if len(lost) > SHOWN else ''}" if lost else "")


def _scored(row: Facts) -> Scored:
    right = RULES[row["rule"]]
    mtp, plain = row["mtp"], row["plain"]
    said = " and ".join(f"{call['name']}({call['arguments']})" for call in mtp["calls"]) or mtp["content"]
    return Scored(row["id"], right(mtp, row["expected"]), right(plain, row["expected"]), said)


def _short(text: str, limit: int = 60) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def _same_calls(answer: Facts, expected: Any) -> bool:
    try:
        calls = [{"name": call["name"], "arguments": parse_json(call["arguments"])} for call in answer["calls"]]
    except ValueError:
        return False
    return same_json(calls, expected)


def _same_value(answer: Facts, expected: Any) -> bool:
    """The whole text, or the block of code in it."""
    block = _BLOCK.search(answer["content"])
    try:
        return same_json(parse_json(block[1] if block else answer["content"]), expected)
    except ValueError:
        return False


def _same_text(answer: Facts, expected: Any) -> bool:
    """The whole text or its last line; case, spaces and a final full stop do not count."""
    text = answer["content"].strip()
    *_, last = text.splitlines() or [""]
    return _plain_text(str(expected)) in (_plain_text(text), _plain_text(last))


def _plain_text(text: str) -> str:
    return " ".join(text.casefold().split()).rstrip(".")


def _same_number(answer: Facts, expected: Any) -> bool:
    """The last number of the text."""
    return last_number(answer["content"]) == number(str(expected))


def _same_choice(answer: Facts, expected: Any) -> bool:
    """The letter after the last "answer is" or "answer:", or else the letter with which the text begins."""
    text = answer["content"].strip()
    announced = _ANNOUNCED.findall(text)
    begins = _LETTER.match(text)
    said = announced[-1] if announced else begins[1] if begins else ""
    return said == str(expected)


RULES: Mapping[str, Callable[[Facts, Any], bool]] = {
    "calls": _same_calls,
    "json": _same_value,
    "text": _same_text,
    "number": _same_number,
    "choice": _same_choice,
}
