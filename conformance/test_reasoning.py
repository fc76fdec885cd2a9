"""REASON: thoughts and text arrive in their own fields, and nothing is lost between them."""

from __future__ import annotations

from conformance.judging.check import check
from conformance.judging.expectations import expect_no_objection
from conformance.views.chat import Chat


@check(
    "REASON-01",
    level="qualify",
    severity="wrong output",
    response="compare-answers",
    oracle="independent",
    claim="With thinking on, thoughts and text arrive complete, each in its own field.",
    chats=("thinking",),
)
def test_thinking(chat: Chat) -> None:
    """The boundary between them may lie anywhere in a delta."""
    expect_no_objection(chat)


@check(
    "REASON-02",
    level="qualify",
    severity="wrong output",
    response="compare-answers",
    oracle="independent",
    claim="With thinking off or not specified, the text arrives complete and without thoughts.",
    chats=("quiet", "omitted"),
)
def test_no_thinking(chat: Chat) -> None:
    """Off is the default of the chat template, so it must be the default of the parser."""
    expect_no_objection(chat)


@check(
    "REASON-03",
    level="qualify",
    severity="wrong output",
    response="compare-answers",
    oracle="independent",
    claim="Thoughts after a tool result do not appear in the text.",
    upstream="vllm#39885",
    chats=("result-thinking",),
)
def test_thinking_after_a_result(chat: Chat) -> None:
    """The chat template leaves the thought channel open there, so the answer begins inside a thought."""
    expect_no_objection(chat)


@check(
    "REASON-04",
    level="qualify",
    severity="wrong output",
    response="compare-answers",
    oracle="independent",
    claim="Thoughts in the chat history do not change the answer.",
    chats=("remembering",),
)
def test_history_with_thoughts(chat: Chat) -> None:
    """Agents send earlier thoughts back to the server."""
    expect_no_objection(chat)
