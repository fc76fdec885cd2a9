"""Where two answers part, as a reader sees it, and what counts as a loop."""

from __future__ import annotations

from typing import Any

import pytest

from conformance.views.texts import LONGEST_PERIOD, Divergence, Fork, loops

ONE, OTHER, THIRD = [1, 2, 3, 4], [1, 2, 9, 4], [1, 2, 3, 4, 5]


def answer(tokens: list[int], text: str) -> dict[str, Any]:
    return {"token_ids": tokens, "text": text}


def a_round(concurrency: int, warm_up: bool = False, **arms: list[dict[str, Any]]) -> dict[str, Any]:
    """A round of the prompts "a" and "b"; an arm that is not named was not asked."""
    told = {arm: {"answers": arms[arm]} if arm in arms else None for arm in ("mtp", "plain", "plain_again")}
    return {"concurrency": concurrency, "warm_up": warm_up, "prompts": ["a", "b"], **told}


def divergence(*between: str, id: str = "b", place: int = 2) -> Divergence:
    first, second = between
    return Divergence(id, (first, second), place, (3, 9), 0.5)


def test_a_fork_has_what_both_answers_share_and_how_each_goes_on() -> None:
    same = answer([7], "same")
    load = {
        "rounds": [
            a_round(8, True, plain=[same, answer([1, 2, 9], "warm-up")], mtp=[same, answer(ONE, "warm-up")]),
            a_round(1, plain=[same, answer(OTHER, "alone")], mtp=[same, answer(ONE, "alone")]),
            a_round(8, plain=[answer(OTHER, "of a"), answer(ONE, "one two three")]),
            a_round(8, plain=[same, answer(OTHER, "one two nine")], mtp=[same, answer(ONE, "one two three")]),
        ]
    }
    wanted = divergence("plain 8", "mtp 8")
    assert Fork.of(wanted, [{"rounds": []}, load]) == Fork(wanted, "one two ", ("nine", "three"))


def test_a_fork_of_an_arm_with_itself() -> None:
    load = {
        "rounds": [
            a_round(1, plain=[answer([7], ""), answer(ONE, "xy")], plain_again=[answer([7], ""), answer(OTHER, "xz")])
        ]
    }
    wanted = divergence("plain 1", "plain_again 1")
    assert Fork.of(wanted, [load]) == Fork(wanted, "x", ("y", "z"))


def test_an_answer_that_only_goes_on_parts_at_its_end() -> None:
    load = {
        "rounds": [a_round(1, plain=[answer(ONE, "ab"), answer([7], "")], mtp=[answer(THIRD, "abc"), answer([7], "")])]
    }
    wanted = divergence("plain 1", "mtp 1", id="a", place=4)
    assert Fork.of(wanted, [load]) == Fork(wanted, "ab", ("", "c"))


def test_tokens_without_a_text_leave_nothing_to_go_on_with() -> None:
    load = {
        "rounds": [a_round(1, plain=[answer(ONE, "ab"), answer([7], "")], mtp=[answer(OTHER, "ab"), answer([7], "")])]
    }
    wanted = divergence("plain 1", "mtp 1", id="a")
    assert Fork.of(wanted, [load]) == Fork(wanted, "ab", ("", ""))


@pytest.mark.parametrize("place", [0, 1, 3, 4])
def test_no_fork_where_no_two_answers_part(place: int) -> None:
    load = {
        "rounds": [a_round(1, plain=[answer(ONE, ""), answer(ONE, "")], mtp=[answer(OTHER, ""), answer(OTHER, "")])]
    }
    assert Fork.of(divergence("plain 1", "mtp 1", place=place), [load]) is None


@pytest.mark.parametrize(
    ("tokens", "looping"),
    [
        ([5] * 12, True),
        ([5] * 11, False),
        ([1, *[5] * 12], True),
        ([5, 6] * 6, True),
        ([5, 6] * 5, False),
        ([1, 2, 3, 4] * 3, True),
        ([1, 2, 3, 4] * 2, False),
        ([*range(LONGEST_PERIOD)] * 3, True),
        ([*range(LONGEST_PERIOD)] * 2, False),
        ([*range(LONGEST_PERIOD + 1)] * 3, False),
        ([1, 2, 3, 4] * 3 + [9], False),
        ([], False),
    ],
)
def test_a_loop_is_a_phrase_again_and_again(tokens: list[int], looping: bool) -> None:
    assert loops(tokens) is looping
