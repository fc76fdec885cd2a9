"""API: the server's other doors say the same, and nobody's mistake brings it down."""

from __future__ import annotations

from conformance.judging.check import check
from conformance.judging.expectations import expect_equal, expect_no_objection, expect_none
from conformance.views.bad_requests import Misuse
from conformance.views.chat import Chats


@check("API-01", level="qualify", claim="OpenAI's Responses API gives the same calls and texts.")
def test_responses(chats: Chats) -> None:
    """In one piece and streamed."""
    expect_no_objection(chats("responses"))


@check("API-02", level="qualify", claim="Anthropic's messages API gives the same calls and texts.")
def test_anthropic_messages(chats: Chats) -> None:
    """In one piece and streamed."""
    expect_no_objection(chats("anthropic"))


@check("API-03", level="qualify", claim="Plain completions of the rendered prompt give the same texts.")
def test_completions(chats: Chats) -> None:
    """In one piece and streamed."""
    expect_no_objection(chats("completions"))


@check("API-04", level="qualify", claim="Wrong requests are refused as the client's fault, never with a 5xx.")
def test_wrong_requests(bad_requests: Misuse) -> None:
    """Malformed bodies, values out of range, unknown names."""
    expect_none(bad_requests.not_refused("request"), among=bad_requests.requests("request"), source=bad_requests)


@check("API-05", level="qualify", claim="Clients that leave amid an answer free their place.")
def test_departures(bad_requests: Misuse) -> None:
    """Alone and eight at once: nothing runs on, and the KV cache is empty."""
    expect_none(bad_requests.still_there(), among=bad_requests.departures, source=bad_requests)


@check("API-06", level="qualify", claim="After all misuse the server answers as before.")
def test_lives_on(bad_requests: Misuse) -> None:
    """The same question, the same answer."""
    after, before = bad_requests.answers()
    expect_equal(after, before, source=bad_requests, what="the answer")


@check(
    "API-07",
    level="qualify",
    claim="Broken schemas and grammars are refused as the client's fault, never with a 5xx.",
    upstream="vllm#57725",
)
def test_broken_grammars(bad_requests: Misuse) -> None:
    """Schemas of no type, expressions and grammars that do not parse, two at once, one that is huge."""
    expect_none(bad_requests.not_refused("grammar"), among=bad_requests.requests("grammar"), source=bad_requests)
