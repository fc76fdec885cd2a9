"""REASON: thoughts and text come in their own fields, and nothing is lost between them."""

from __future__ import annotations

from conformance.judging.check import check
from conformance.judging.expectations import expect_no_objection
from conformance.views.chat import Chats


@check("REASON-01", level="qualify", claim="Thinking on: thoughts and text come whole, each in its field.")
def test_thinking(chats: Chats) -> None:
    """The boundary lies anywhere in a delta."""
    expect_no_objection(chats("thinking"))


@check("REASON-02", level="qualify", claim="Thinking off or not spoken of: text comes whole, without thoughts.")
def test_quiet(chats: Chats) -> None:
    """Off is the template's default, and must be the parser's."""
    expect_no_objection(chats("quiet", "omitted"))


@check(
    "REASON-03", level="qualify", claim="Thoughts after a tool's result stay out of the text.", upstream="vllm#39885"
)
def test_thinking_after_a_result(chats: Chats) -> None:
    """The template leaves the channel open there, so the answer begins amid a thought."""
    expect_no_objection(chats("result-thinking"))


@check("REASON-04", level="qualify", claim="Earlier thoughts in the history change nothing.")
def test_history_with_thoughts(chats: Chats) -> None:
    """Agents send them back."""
    expect_no_objection(chats("remembering"))
