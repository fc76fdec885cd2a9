"""PARSE: vLLM's parser for Gemma 4 is correct as a function of tokens, without a server."""

from __future__ import annotations

from conformance.judging.check import check
from conformance.judging.expectations import expect_no_objection
from conformance.views.parsers import Parsers


@check(
    "PARSE-01",
    level="static",
    severity="wrong output",
    response="guard-client",
    claim="The parser returns typed arguments unchanged.",
)
def test_typed_arguments(parsers: Parsers) -> None:
    """The chat template writes scalars, arrays and objects; the parser reads them in one piece and token by token."""
    expect_no_objection(parsers.round_trip("scalars", "nested"))


@check(
    "PARSE-02",
    level="static",
    severity="wrong output",
    response="guard-client",
    claim="The parser returns arguments unchanged if their schema allows several types.",
    upstream="vllm#39679",
)
def test_arguments_of_several_types(parsers: Parsers) -> None:
    """Delimiters mark a string as a string, even if its text looks like null or a number."""
    expect_no_objection(parsers.round_trip("unions"))


@check(
    "PARSE-03",
    level="static",
    severity="wrong output",
    response="guard-client",
    claim="The parser keeps the JSON type of arguments whose schema names no type.",
    upstream="vllm#47906",
)
def test_untyped_arguments(parsers: Parsers) -> None:
    """Numbers, booleans and null."""
    expect_no_objection(parsers.round_trip("untyped"))


@check(
    "PARSE-04",
    level="static",
    severity="wrong output",
    response="guard-client",
    claim="The parser gives the same result wherever an answer is cut into deltas.",
    upstream="vllm#41967",
)
def test_chunking(parsers: Parsers) -> None:
    """Answers are cut once at every place, after every token, and at random places, as MTP delivers them."""
    expect_no_objection(parsers.chunking())


@check(
    "PARSE-05",
    level="static",
    severity="blocks serving",
    response="change-release",
    claim="No text makes the parser fail or invent content.",
)
def test_any_text(parsers: Parsers) -> None:
    """Delimiters and fragments in any order cause no exception, no long run and no output that is not in the text."""
    expect_no_objection(parsers.any_text())


@check(
    "PARSE-06",
    level="static",
    severity="wrong output",
    response="guard-client",
    claim="The parser returns the valid instances of published JSON schemas unchanged.",
)
def test_published_instances(parsers: Parsers) -> None:
    """Those of JSON-Schema-Test-Suite whose schema names the type of every value."""
    expect_no_objection(parsers.published())
