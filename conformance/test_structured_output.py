"""GRAMMAR: what was asked for by schema, choice, expression or grammar is what comes, with drafts in it."""

from __future__ import annotations

from conformance.judging.check import check
from conformance.judging.expectations import expect_no_objection
from conformance.views.chat import Chats


@check(
    "GRAMMAR-01",
    level="qualify",
    claim="Strict JSON schemas and forced answers come out, thinking off or not spoken of.",
)
def test_strict_schema(chats: Chats) -> None:
    """Whether the parser thinks that thoughts are to come decides when the grammar begins."""
    expect_no_objection(chats("strict", "strict-omitted", "forced", "forced-omitted"))


@check(
    "GRAMMAR-02",
    level="qualify",
    claim="Strict JSON schemas and forced answers come out after a thought.",
    upstream="vllm#44993",
)
def test_strict_schema_after_a_thought(chats: Chats) -> None:
    """One step of MTP may hold the end of the thought and the beginning of the JSON."""
    expect_no_objection(chats("strict-thinking", "forced-thinking"))


@check("GRAMMAR-03", level="qualify", claim="A strict JSON schema is followed beside tools.")
def test_strict_schema_beside_tools(chats: Chats) -> None:
    """The tools are offered, and not to be used."""
    expect_no_objection(chats("strict-tools"))


@check("GRAMMAR-04", level="qualify", claim="JSON objects, choices, expressions and grammars are followed.")
def test_other_grammars(chats: Chats) -> None:
    """One group of cases for each."""
    expect_no_objection(chats("object", "choice", "regex", "grammar"))


@check(
    "GRAMMAR-05",
    level="qualify",
    claim="Strict JSON schemas and forced answers come out at 8 and at 24 at once.",
    upstream="vllm#44993",
)
def test_strict_schema_at_once(chats: Chats) -> None:
    """With thinking on and off in the same batch."""
    expect_no_objection(chats("strict-8", "strict-24"))
