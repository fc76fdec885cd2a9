"""GRAMMAR: with MTP, answers follow the schema, choice, expression or grammar of the request."""

from __future__ import annotations

from conformance.judging.check import check
from conformance.judging.expectations import expect_no_objection
from conformance.views.chat import Chat


@check(
    "GRAMMAR-01",
    level="qualify",
    severity="wrong output",
    response="compare-answers",
    oracle="independent",
    claim="Answers follow strict JSON schemas and forced patterns with thinking off or not specified.",
    chats=("strict", "strict-omitted", "forced", "forced-omitted"),
)
def test_strict_schema(chat: Chat) -> None:
    """The grammar starts after the thoughts, so it depends on whether the parser expects any."""
    expect_no_objection(chat)


@check(
    "GRAMMAR-02",
    level="qualify",
    severity="wrong output",
    response="compare-answers",
    oracle="independent",
    claim="Answers follow strict JSON schemas and forced patterns after a thought.",
    upstream="vllm#44993",
    chats=("strict-thinking", "forced-thinking"),
)
def test_strict_schema_after_a_thought(chat: Chat) -> None:
    """One MTP step may hold the end of the thought and the beginning of the JSON."""
    expect_no_objection(chat)


@check(
    "GRAMMAR-03",
    level="qualify",
    severity="wrong output",
    response="compare-answers",
    oracle="independent",
    claim="Answers follow a strict JSON schema when the request also offers tools.",
    chats=("strict-tools",),
)
def test_strict_schema_beside_tools(chat: Chat) -> None:
    """The model must not use the offered tools."""
    expect_no_objection(chat)


@check(
    "GRAMMAR-04",
    level="qualify",
    severity="wrong output",
    response="compare-answers",
    oracle="independent",
    claim="Answers follow JSON object mode, choices, regular expressions and grammars.",
    chats=("object", "choice", "regex", "grammar"),
)
def test_other_grammars(chat: Chat) -> None:
    """Each has its own group of cases."""
    expect_no_objection(chat)


@check(
    "GRAMMAR-05",
    level="qualify",
    severity="wrong output",
    response="compare-answers",
    oracle="independent",
    claim="Answers follow strict JSON schemas and forced patterns with 8 and with 24 requests at once.",
    upstream="vllm#44993",
    chats=("strict-8", "strict-24"),
)
def test_strict_schema_at_once(chat: Chat) -> None:
    """The batch of 24 mixes requests with thinking on and off."""
    expect_no_objection(chat)
