"""PARSE: vLLM's parser for Gemma 4 is correct as a function of tokens, without a server."""

from __future__ import annotations

from conformance.judging.check import check
from conformance.judging.expectations import expect_no_kind, expect_no_objection
from conformance.views.parsers import Parsers


@check(
    "PARSE-01",
    level="static",
    severity="wrong output",
    response="guard-client",
    oracle="independent",
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
    oracle="independent",
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
    oracle="independent",
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
    oracle="paired",
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
    oracle="self-consistent",
    no_better_oracle="Arbitrary text has no right result, so only what may never happen is known.",
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
    oracle="independent",
    claim="The parser returns the valid instances of published JSON schemas unchanged.",
)
def test_published_instances(parsers: Parsers) -> None:
    """Those of JSON-Schema-Test-Suite whose schema names the type of every value."""
    expect_no_objection(parsers.published())


@check(
    "PARSE-07",
    level="static",
    severity="wrong output",
    response="guard-client",
    oracle="independent",
    claim="The parser returns arguments unchanged under the schemas that tools really have.",
    upstream="vllm#46924",
)
def test_schemas_of_tools(parsers: Parsers) -> None:
    """References, unions, recursion, tuples, open objects, constants, formats and no type, one inside the other."""
    expect_no_kind(parsers.answers("schemas"))


@check(
    "PARSE-08",
    level="static",
    severity="wrong output",
    response="guard-client",
    oracle="independent",
    claim="The parser returns the valid instances of the whole JSON-Schema-Test-Suite unchanged.",
    upstream="vllm#46924",
)
def test_whole_suite(parsers: Parsers) -> None:
    """Every instance of draft 2020-12 that a tool's parameters can hold; docs/parsing.md says what is left out."""
    expect_no_kind(parsers.answers("suite"))


@check(
    "PARSE-09",
    level="static",
    severity="wrong output",
    response="guard-client",
    oracle="independent",
    claim="The parser returns names, keys and numbers of every form with every character.",
)
def test_names_keys_and_numbers(parsers: Parsers) -> None:
    """Names of 64 characters, keys in other scripts, integers beyond 2 ** 63, exponents."""
    expect_no_kind(parsers.answers("names"))


@check(
    "PARSE-10",
    level="static",
    severity="wrong output",
    response="guard-client",
    oracle="independent",
    claim="A near-native answer gives the calls that it means, or its text stays visible.",
    upstream="vllm#51284",
)
def test_near_native_answers(parsers: Parsers) -> None:
    """Never is anything lost in silence, a mark in a name, key or value, or another value; streamed as in one piece."""
    expect_no_kind(parsers.answers("near_native"))


@check(
    "PARSE-11",
    level="static",
    severity="wrong output",
    response="guard-client",
    oracle="independent",
    claim="An answer that is cut gives no finished call of a part.",
    upstream="vllm#47903",
)
def test_cut_answers(parsers: Parsers) -> None:
    """Every prefix of every recorded answer, and drawn calls that end after any token."""
    expect_no_kind(parsers.answers("cut"))


@check(
    "PARSE-12",
    level="static",
    severity="wrong output",
    response="guard-client",
    oracle="independent",
    claim="Thoughts, text and calls are where they belong, with a channel and without, streamed as in one piece.",
    upstream="vllm#48217",
)
def test_thinking_without_a_channel(parsers: Parsers) -> None:
    """Thinking on, off and left out, after a question and after a tool's result."""
    expect_no_kind(parsers.answers("thinking"))
