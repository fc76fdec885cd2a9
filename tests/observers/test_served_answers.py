"""What the observers of FEATURE keep of a reply, and what they ask."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import httpx
import pytest
from negative_controls.faux_servers import PROFILE

from conformance import FIXTURES
from conformance.errors import ObservationError, Unsupported
from conformance.observers import context_limit, cut_answers, preemption, prefix_caching
from conformance.observers.served_answers import ask, frames
from conformance.workload.option_cases import OPTIONS, Baseline, filled, load_options
from conformance.workload.prompts import LONG, load_prefixes

BASELINE = Baseline(range(100, 112), [f"w{n} " for n in range(12)], k=4)


class Answering:
    """A server that gives one response."""

    model, alive = "m", True

    def __init__(self, response: httpx.Response) -> None:
        self.response, self.asked = response, dict[str, Any]()

    def request(self, _method: str, _path: str, _seconds: float, question: dict[str, Any]) -> httpx.Response:
        self.asked = question
        return self.response

    def failure(self, what: str) -> ObservationError:
        return ObservationError(what)


def stream(*parts: Any) -> httpx.Response:
    lines = "".join(f"data: {json.dumps(part)}\n\n" for part in parts) + "data: [DONE]\n\n"
    return httpx.Response(200, content=lines.encode())


USAGE = {"prompt_tokens": 7, "completion_tokens": 3}


def test_a_streamed_reply_is_put_together() -> None:
    call = {"index": 0, "function": {"name": "pay", "arguments": '{"a"'}}
    rest = {"index": 0, "function": {"arguments": ": 1}"}}
    server = Answering(
        stream(
            {"choices": [{"index": 0, "delta": {"reasoning": "hm", "tool_calls": [call]}, "token_ids": [1]}]},
            {"choices": [{"index": 0, "delta": {"tool_calls": [rest], "content": "x"}, "token_ids": [2, 3]}]},
            {"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]},
            {"choices": [], "usage": USAGE},
        )
    )
    found = ask(server, "/", {"stream": True}, 1.0)  # type: ignore[arg-type]
    assert server.asked["stream_options"] == {"include_usage": True}
    assert found["usage"] == [7, 3]
    assert found["choices"] == [
        {"text": "x", "reasoning": "hm", "calls": [{"name": "pay", "arguments": '{"a": 1}'}]}
        | {"token_ids": [1, 2, 3], "finish_reason": "length"}
    ]


@pytest.mark.parametrize(
    "scores",
    [
        {"content": [{"token": "a", "top_logprobs": [{"logprob": -2.0}, {"logprob": -0.5}]}]},
        {"top_logprobs": [{"a": -0.5, "b": -2.0}]},
    ],
)
def test_leads_are_kept_as_gaps(scores: dict[str, Any]) -> None:
    choice = {"index": 0, "text": "a", "token_ids": [1], "finish_reason": "length", "logprobs": scores}
    found = ask(Answering(httpx.Response(200, json={"choices": [choice], "usage": USAGE})), "/", {}, 1.0)  # type: ignore[arg-type]
    assert found["choices"][0]["gaps"] == [1.5]


def test_a_refusal_keeps_its_status_and_message() -> None:
    found = ask(Answering(httpx.Response(400, text="min_p is not supported")), "/", {}, 1.0)  # type: ignore[arg-type]
    assert (found["status"], found["message"], found["choices"]) == (400, "min_p is not supported", [])
    cut = ask(Answering(stream({"error": {"message": "boom"}})), "/", {"stream": True}, 1.0)  # type: ignore[arg-type]
    assert cut["status"] is None
    assert "boom" in cut["message"]
    with pytest.raises(ValueError, match="boom"):
        frames(stream({"error": "boom"}))


def test_a_dead_server_is_an_error() -> None:
    server = Answering(httpx.Response(200, text="no JSON"))
    server.alive = False
    with pytest.raises(ObservationError, match="ended during a request"):
        ask(server, "/", {}, 1.0)  # type: ignore[arg-type]


def test_placeholders_of_options_are_filled() -> None:
    wanted = {"logit_bias": {"$id:3": -100}, "stop": ["$text:5:7"], "max_tokens": "$k:1", "min_tokens": "$length:2"}
    assert filled(wanted, BASELINE) == {
        "logit_bias": {"103": -100},
        "stop": ["w5 w6 "],
        "max_tokens": 5,
        "min_tokens": 14,
    }
    with pytest.raises(ObservationError, match="the answer of 12 tokens has none at place 12"):
        filled("$id:12", BASELINE)


def test_every_shipped_case_can_be_filled() -> None:
    cases = load_options(FIXTURES / "prompts" / OPTIONS)
    for case in cases:
        assert "$" not in str(filled(case.set, BASELINE)), case.id
        assert case.field in case.set, case.id
    assert {case.about for case in cases} == {"choice", "ending"}


def test_long_prompts_are_as_long_as_asked_for_and_differ_early() -> None:
    assert context_limit.repeated([2, 5, 6], 6) == [2, 5, 6, 5, 6, 5]
    prompts = list(preemption.rotated(list(range(100)), 40))
    assert {len(prompt) for prompt in prompts} == {40}
    assert len({prompt[1] for prompt in prompts}) == preemption.REQUESTS
    assert [row.id for row in load_prefixes(FIXTURES / "prompts" / LONG)] == ["story", "sequel", "other"]


def test_cuts_are_spread_and_never_at_the_end() -> None:
    assert cut_answers.places_to_cut(5) == [1, 2, 3, 4]
    places = cut_answers.places_to_cut(60)
    assert len(places) == cut_answers.CUTS
    assert max(places) < 60


def test_a_longer_prompt_begins_like_the_shorter_one() -> None:
    asked = prefix_caching.questions("A tale.", "More.", "Another.")
    assert asked["sequel"]["messages"][0]["content"].startswith("A tale. ")
    assert {*(step.prompt for step in prefix_caching.STEPS), "fill"} == asked.keys()


def test_a_large_cache_is_never_crowded() -> None:
    hardware = replace(PROFILE.hardware, served=replace(PROFILE.hardware.as_served(), small_cache=False))
    with pytest.raises(Unsupported, match="The cache of hardware faux holds these requests"):
        preemption.observe(replace(PROFILE, hardware=hardware), None, None)  # type: ignore[arg-type]
