"""API: the server's other APIs give the same answers, and no client error stops the server."""

from __future__ import annotations

from conformance.judging.check import check
from conformance.judging.expectations import expect_equal, expect_no_objection, expect_none
from conformance.views.bad_requests import Misuse
from conformance.views.chat import Chat


@check(
    "API-01",
    level="qualify",
    severity="wrong output",
    response="compare-answers",
    oracle="independent",
    claim="OpenAI's Responses API gives the same calls and texts as the chat API.",
    chats=("responses",),
)
def test_responses(chat: Chat) -> None:
    """Not streamed and streamed."""
    expect_no_objection(chat)


@check(
    "API-02",
    level="qualify",
    severity="wrong output",
    response="compare-answers",
    oracle="independent",
    claim="Anthropic's Messages API gives the same calls and texts as the chat API.",
    chats=("anthropic",),
)
def test_anthropic_messages(chat: Chat) -> None:
    """Not streamed and streamed."""
    expect_no_objection(chat)


@check(
    "API-03",
    level="qualify",
    severity="wrong output",
    response="compare-answers",
    oracle="independent",
    claim="The completions API gives the same texts for the rendered prompts as the chat API.",
    chats=("completions",),
)
def test_completions(chat: Chat) -> None:
    """Not streamed and streamed."""
    expect_no_objection(chat)


@check(
    "API-04",
    level="qualify",
    severity="wrong output",
    response="guard-client",
    oracle="published",
    claim="The server refuses invalid requests with a 4xx status, never with a 5xx.",
)
def test_wrong_requests(bad_requests: Misuse) -> None:
    """The bodies are malformed, values are out of range, or names are unknown."""
    expect_none(bad_requests.wrong_statuses("request"), among=bad_requests.requests("request"), source=bad_requests)


@check(
    "API-05",
    level="qualify",
    severity="blocks serving",
    response="restart-server",
    oracle="self-consistent",
    no_better_oracle="Only vLLM's gauges show what it still holds for a client that has left.",
    claim="The server frees the resources of clients that disconnect during an answer.",
)
def test_disconnects(bad_requests: Misuse) -> None:
    """One client, and eight at once: no request runs on or was written to its end, and the KV cache is empty."""
    expect_none(bad_requests.leftovers(), among=bad_requests.departures, source=bad_requests)


@check(
    "API-06",
    level="qualify",
    severity="wrong output",
    response="compare-answers",
    oracle="paired",
    claim="After invalid requests and disconnects the server gives the same answer as before.",
)
def test_answer_after_misuse(bad_requests: Misuse) -> None:
    """The same question is asked before and after."""
    after, before = bad_requests.answers()
    expect_equal(after, before, source=bad_requests, what="the answer")


@check(
    "API-07",
    level="qualify",
    severity="wrong output",
    response="guard-client",
    oracle="published",
    claim="The server refuses broken schemas and grammars with a 4xx status, never with a 5xx.",
    upstream="vllm#57725",
)
def test_broken_grammars(bad_requests: Misuse) -> None:
    """Schemas of an unknown type, expressions and grammars that do not parse, two constraints at once, a huge one."""
    expect_none(bad_requests.wrong_statuses("grammar"), among=bad_requests.requests("grammar"), source=bad_requests)
