"""Which tokens an answer may have in place of the gold one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from conformance.views.gold import Gold, GoldRow

NEAR_TIE = 0.3
ROW = {
    "prompt": [2],
    "answer": [10, 11],
    "runner_up": [20, 21],
    "gap": [0.1, 5.0],
    "others": [[0, 30, 0.2], [0, 31, 0.9]],
}


def divergences(first: int, **changed: Any) -> list[str]:
    """What is said of an answer that begins with this token."""
    answer: Any = SimpleNamespace(token_ids=(first, 11), tokens=2, finish_reason="stop")
    return Gold({"mtp": {"a": answer}}, {"a": GoldRow.of(ROW | changed)}).divergences("mtp", NEAR_TIE)


@pytest.mark.parametrize("token", [10, 20, 30])
def test_each_of_three_tokens_that_are_nearly_as_likely_is_right(token: int) -> None:
    assert not divergences(token)


def test_a_likely_token_that_is_too_far_behind_is_wrong() -> None:
    assert divergences(31) == [
        "a with MTP differs from the gold answer at token 0: its token is a likely one, which is 0.90 nats behind"
    ]


def test_a_token_that_is_not_likely_is_wrong_beside_a_near_tie() -> None:
    (said,) = divergences(40)
    assert "not even the second most likely one" in said


def test_a_gold_file_without_further_tokens_is_read() -> None:
    assert divergences(20, others=[]) == []
    assert divergences(30, others=[])
