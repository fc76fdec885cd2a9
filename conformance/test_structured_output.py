"""GRAMMAR: with MTP, answers follow the schema, choice, expression or grammar of the request."""

from __future__ import annotations

from conformance.judging.check import check
from conformance.judging.expectations import expect_no_objection
from conformance.views.chat import Chats


@check(
    "GRAMMAR-01",
    level="qualify",
    claim="Answers follow strict JSON schemas and forced patterns with thinking off or not specified.",
)
def test_strict_schema(chats: Chats) -> None:
    """The grammar starts after the thoughts, so it depends on whether the parser expects any."""
    expect_no_objection(chats("strict", "strict-omitted", "forced", "forced-omitted"))


@check(
    "GRAMMAR-02",
    level="qualify",
    claim="Answers follow strict JSON schemas and forced patterns after a thought.",
    upstream="vllm#44993",
)
def test_strict_schema_after_a_thought(chats: Chats) -> None:
    """One MTP step may hold the end of the thought and the beginning of the JSON."""
    expect_no_objection(chats("strict-thinking", "forced-thinking"))


@check("GRAMMAR-03", level="qualify", claim="Answers follow a strict JSON schema when the request also offers tools.")
def test_strict_schema_beside_tools(chats: Chats) -> None:
    """The model must not use the offered tools."""
    expect_no_objection(chats("strict-tools"))


@check(
    "GRAMMAR-04", level="qualify", claim="Answers follow JSON object mode, choices, regular expressions and grammars."
)
def test_other_grammars(chats: Chats) -> None:
    """Each has its own group of cases."""
    expect_no_objection(chats("object", "choice", "regex", "grammar"))


@check(
    "GRAMMAR-05",
    level="qualify",
    claim="Answers follow strict JSON schemas and forced patterns with 8 and with 24 requests at once.",
    upstream="vllm#44993",
)
def test_strict_schema_at_once(chats: Chats) -> None:
    """The batch of 24 mixes requests with thinking on and off."""
    expect_no_objection(chats("strict-8", "strict-24"))
