"""PARSE: vLLM's parser of Gemma 4 as a function of tokens, without a server."""

from __future__ import annotations

from conformance.judging.check import check
from conformance.judging.expectations import expect_no_objection
from conformance.views.parsers import Parsers


@check("PARSE-01", level="static", claim="Typed arguments come back from Gemma 4's syntax as they went in.")
def test_typed_arguments(parsers: Parsers) -> None:
    """Written by the chat template, parsed in one piece and token by token; scalars, arrays and objects."""
    expect_no_objection(parsers.round_trip("scalars", "nested"))


@check("PARSE-02", level="static", claim="Arguments of several types come back as they went in.", upstream="vllm#39679")
def test_arguments_of_several_types(parsers: Parsers) -> None:
    """A string that reads like null or a number is a string: its delimiters say so."""
    expect_no_objection(parsers.round_trip("unions"))


@check("PARSE-03", level="static", claim="Untyped arguments keep their JSON type.", upstream="vllm#47906")
def test_untyped_arguments(parsers: Parsers) -> None:
    """Numbers, booleans and null whose schema names no type."""
    expect_no_objection(parsers.round_trip("untyped"))


@check(
    "PARSE-04",
    level="static",
    claim="An answer cut into deltas anywhere gives what the whole gives.",
    upstream="vllm#41967",
)
def test_chunking(parsers: Parsers) -> None:
    """At every single place, token by token, and at random, as MTP delivers them."""
    expect_no_objection(parsers.chunking())


@check("PARSE-05", level="static", claim="No text breaks the parser or makes it invent anything.")
def test_any_text(parsers: Parsers) -> None:
    """Delimiters and fragments in any order: no exception, bounded time, nothing that is not in the text."""
    expect_no_objection(parsers.any_text())


@check("PARSE-06", level="static", claim="Published schemas with their valid instances come back as they went in.")
def test_published_instances(parsers: Parsers) -> None:
    """Those of JSON-Schema-Test-Suite whose schema names the type of everything."""
    expect_no_objection(parsers.published())
