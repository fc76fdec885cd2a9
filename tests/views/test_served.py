"""Views of what people switch on, at the edges that no made-up run has."""

from __future__ import annotations

from typing import Any

import pytest

from conformance.errors import ObservationError, Unsupported
from conformance.views.served import parallelism, replies, seeds, token_scores


@pytest.mark.parametrize(
    ("what", "changed", "served", "error", "sentence"),
    [
        ("world_size", {}, {"world_size": 2}, Unsupported, "The servers do not tell their world size."),
        ("world_size", {"world_size": 2}, {}, Unsupported, "The servers do not tell their world size."),
        (
            "custom_all_reduce",
            {"custom_all_reduce": False},
            {"custom_all_reduce": False},
            Unsupported,
            "vLLM uses no custom all-reduce on this machine, so there is none to switch off.",
        ),
        (
            "custom_all_reduce",
            {"custom_all_reduce": True},
            {"custom_all_reduce": True},
            ObservationError,
            "both servers have custom all reduce True, so nothing was tested",
        ),
        (
            "world_size",
            {"world_size": 0},
            {"world_size": 0},
            ObservationError,
            "both servers have world size 0, so nothing was tested",
        ),
    ],
)
def test_a_feature_that_changed_nothing_is_not_judged(
    what: str, changed: dict[str, Any], served: dict[str, Any], error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error) as refused:
        parallelism._require_changed(what, changed, served)
    assert str(refused.value) == sentence or getattr(refused.value, "sentence", "") == sentence


def test_a_feature_that_changed_something_is_judged() -> None:
    parallelism._require_changed("world_size", {"world_size": 1}, {"world_size": 2})


def row(seed: int, *answers: list[list[int]]) -> dict[str, Any]:
    """A request for as many answers as each reply has."""
    told = [{"choices": [{"token_ids": each} for each in reply]} for reply in answers]
    return {"seed": seed, "n": len(answers[0]), "replies": told}


def test_seeds_that_change_nothing_are_told() -> None:
    alike, other = row(1, [[5, 6]]), row(2, [[5, 6]])
    assert list(seeds._constant([alike, other])) == ["2 seeds give one text"]
    assert list(seeds._constant([alike])) == []
    assert list(seeds._constant([alike, row(2, [[5, 7]])])) == []
    assert list(seeds._constant([alike, other, row(3, [[5, 7]])])) == []


def test_answers_to_one_request_that_are_all_one_text_are_told() -> None:
    assert list(seeds._constant([row(4, [[1], [1], [1]])])) == ["3 answers to one request with seed 4 are one text"]
    assert list(seeds._constant([row(4, [[1], [1], [2]])])) == []
    assert list(seeds._constant([row(4, [[2], [1], [1]])])) == []


def test_a_request_without_an_answer_is_no_text() -> None:
    nothing = {"seed": 1, "n": 1, "replies": [{"choices": []}, {"choices": []}]}
    assert list(seeds._constant([nothing, row(2, [[5]])])) == []


def test_the_first_answer_that_is_another_one_the_second_time_is_told() -> None:
    rows = [row(7, [[1, 2]], [[1, 2]]), row(8, [[1, 2]], [[1, 3]]), row(9, [[1], [2], [3]], [[1], [2, 4], [5]])]
    assert list(seeds._repeated_otherwise(rows)) == [
        "seed 8 gives another token at 1 the second time",
        "seed 9, answer 2 of 3, gives another token at 1 the second time",
    ]


def scores(tokens: list[int], logprobs: list[float | None], prompt: list[float | None]) -> dict[str, Any]:
    return {"token_ids": tokens, "logprobs": logprobs, "prompt_logprobs": prompt}


def test_the_largest_shift_of_two_scores_of_one_text() -> None:
    one = scores([1, 2, 3], [-1.0, -2.0, -3.0], [None, -0.5])
    assert token_scores._shift(one, one)[0] == 0
    other = scores([1, 2, 3], [-1.0, -2.25, -3.0], [None, -0.5])
    assert token_scores._shift(one, other) == (0.25, "-2.250 where -2.000 is right in logprobs at place 1")
    prompted = scores([1, 2, 3], [-1.0, -2.0, -3.0], [None, -1.5])
    assert token_scores._shift(one, prompted) == (1.0, "-1.500 where -0.500 is right in prompt_logprobs at place 1")


def test_scores_after_another_token_are_of_another_text() -> None:
    one, other = scores([1, 2, 3], [-1.0, -2.0, -3.0], []), scores([1, 9, 3], [-1.5, -9.0, -9.0], [])
    assert token_scores._shift(one, other) == (0.5, "-1.500 where -1.000 is right in logprobs at place 0")


def reply(tokens: list[int], finish: str = "length", counted: int | None = None) -> dict[str, Any]:
    count = len(tokens) if counted is None else counted
    return {
        "status": 200,
        "choices": [{"token_ids": tokens, "finish_reason": finish}],
        "usage": [5, count],
        "message": "",
    }


def test_what_is_wrong_with_a_reply_by_itself() -> None:
    assert list(replies.incomplete("x", reply([1, 2]), 2)) == []
    assert list(replies.incomplete("x", reply([1, 2]))) == []
    assert list(replies.incomplete("x", reply([1, 2], counted=3))) == ["x has 2 token ids where usage counts 3"]
    short = 'x has 2 tokens and finish_reason "length" where 3 and "length" are right'
    assert list(replies.incomplete("x", reply([1, 2]), 3)) == [short]
    ended = 'x has 2 tokens and finish_reason "stop" where 2 and "length" are right'
    assert list(replies.incomplete("x", reply([1, 2], "stop"), 2)) == [ended]
    refused = {"status": 503, "message": "b" * 130}
    assert list(replies.incomplete("x", refused)) == [f"x got HTTP 503: {'b' * 120}"]
    assert list(replies.incomplete("x", {"status": None, "message": "gone"})) == ["x got no answer: gone"]


def test_what_a_client_gets_is_all_but_the_gaps() -> None:
    assert replies.said({"choices": [{"text": "a", "gaps": [1.0]}, {"text": "b"}]}) == [{"text": "a"}, {"text": "b"}]
