"""REASON: thoughts and text arrive in their own fields, and nothing is lost between them."""

from __future__ import annotations

from conformance.judging.check import check
from conformance.judging.expectations import expect_no_objection
from conformance.views.chat import Chats


@check(
    "REASON-01", level="qualify", claim="With thinking on, thoughts and text arrive complete, each in its own field."
)
def test_thinking(chats: Chats) -> None:
    """The boundary between them may lie anywhere in a delta."""
    expect_no_objection(chats("thinking"))


@check(
    "REASON-02",
    level="qualify",
    claim="With thinking off or not specified, the text arrives complete and without thoughts.",
)
def test_no_thinking(chats: Chats) -> None:
    """Off is the default of the chat template, so it must be the default of the parser."""
    expect_no_objection(chats("quiet", "omitted"))


@check(
    "REASON-03", level="qualify", claim="Thoughts after a tool result do not appear in the text.", upstream="vllm#39885"
)
def test_thinking_after_a_result(chats: Chats) -> None:
    """The chat template leaves the thought channel open there, so the answer begins inside a thought."""
    expect_no_objection(chats("result-thinking"))


@check("REASON-04", level="qualify", claim="Thoughts in the chat history do not change the answer.")
def test_history_with_thoughts(chats: Chats) -> None:
    """Agents send earlier thoughts back to the server."""
    expect_no_objection(chats("remembering"))
