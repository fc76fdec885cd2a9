"""Differences in words: what is wrong, cut to the first few, as a finding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from conformance.judging.observed import Seen
from conformance.judging.verdict import Finding, Verdict

SHOWN_DIFFERENCES = 3


def comparison(wrong: Sequence[str], total: int, right: int, word: str, source: Seen, note: str = "") -> Finding:
    """A finding that fails with the first differences, or passes with the number of those that are right."""
    verdict = Verdict.FAIL if wrong else Verdict.PASS
    sentence = join_first(wrong) if wrong else f"{right} of {total} {word}"
    return Finding(verdict, sentence, f"{right} of {total}", "all", total, None, source.source, note)


def join_first(wrong: Sequence[str]) -> str:
    """The first differences in one sentence, and the number of the others."""
    more = f"; and {len(wrong) - SHOWN_DIFFERENCES} more" if len(wrong) > SHOWN_DIFFERENCES else ""
    return "; ".join(wrong[:SHOWN_DIFFERENCES]) + more


class Absent:
    """The value of a key that is not there."""

    def __repr__(self) -> str:
        return "absent"


ABSENT = Absent()


def difference(name: str, actual: Any, expected: Any) -> str:
    """What differs from what is expected."""
    wanted = "nothing" if expected is ABSENT else show(expected)
    return f"{name} is {show(actual)} where {wanted} is expected"


def show(value: Any, limit: int = 120) -> str:
    """A value for a reader, cut after ``limit`` characters."""
    text = value if isinstance(value, str) else repr(list(value) if isinstance(value, tuple) else value)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
