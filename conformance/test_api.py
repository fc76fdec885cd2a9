"""API: the server's other doors say the same, and nobody's mistake brings it down."""

from __future__ import annotations

from conformance.harness.check import check, expect_equal, expect_no_objection, expect_none
from conformance.harness.views.chat import Chats
from conformance.harness.views.misuse import Misuse


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
def test_wrong_requests(misuse: Misuse) -> None:
    """Malformed bodies, values out of range, unknown names."""
    expect_none(misuse.not_refused("request"), among=misuse.requests("request"), source=misuse)


@check("API-05", level="qualify", claim="Clients that leave amid an answer free their place.")
def test_departures(misuse: Misuse) -> None:
    """Alone and eight at once: nothing runs on, and the KV cache is empty."""
    expect_none(misuse.still_there(), among=misuse.departures, source=misuse)


@check("API-06", level="qualify", claim="After all misuse the server answers as before.")
def test_lives_on(misuse: Misuse) -> None:
    """The same question, the same answer."""
    after, before = misuse.answers()
    expect_equal(after, before, source=misuse, what="the answer")


@check(
    "API-07",
    level="qualify",
    claim="Broken schemas and grammars are refused as the client's fault, never with a 5xx.",
    upstream="vllm#57725",
)
def test_broken_grammars(misuse: Misuse) -> None:
    """Schemas of no type, expressions and grammars that do not parse, two at once, one that is huge."""
    expect_none(misuse.not_refused("grammar"), among=misuse.requests("grammar"), source=misuse)
