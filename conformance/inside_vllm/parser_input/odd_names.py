"""Names of tools, keys and numbers as far as their formats go, as Hypothesis strategies."""

from __future__ import annotations

import keyword
from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st

from conformance.inside_vllm.parser_input.tool_schemas import FLOATS, KEYS, WORDS

TOOL = "set_values"
NAMES = st.from_regex(r"[A-Za-z0-9_.:/-]{1,64}", fullmatch=True)
SCHEMA_WORDS = (
    "type",
    "description",
    "properties",
    "required",
    "items",
    "name",
    "arguments",
    "call",
    "thought",
    "null",
)
# No structural character: the template writes keys without delimiters and without an escape.
_LETTERS = st.characters(categories=["L", "N", "M"], include_characters=" ._-'\"/$@", exclude_characters=":,{}[]<>|")
ODD_KEYS = (
    st.text(_LETTERS, min_size=1, max_size=10).map(str.strip).filter(bool)
    | st.sampled_from(SCHEMA_WORDS)
    | st.sampled_from(keyword.kwlist)
    | st.sampled_from(["file path", "a.b", "it's", 'the "name"', "Größe", "名前", "ключ", "مفتاح"])
)
# From 2 ** 53 on not every integer is a double, from 2 ** 63 on none is a machine's.
LONG = st.sampled_from([2**53 + 1, 2**63, 2**64 + 1, -(2**53) - 1, -(2**63) - 1]) | st.integers(2**53, 10**30)
EXPONENTS = st.builds(
    lambda digit, power: float(f"{digit}e{power}"), st.integers(1, 9), st.integers(16, 300)
) | st.builds(lambda digit, power: float(f"{digit}e-{power}"), st.integers(1, 9), st.integers(5, 300))


def _given(name: str, key: str, schema: Mapping[str, Any], value: Any, cause: str) -> dict[str, Any]:
    parameters = {"type": "object", "properties": {key: dict(schema)}}
    return {"name": name, "schema": parameters, "arguments": {key: value}, "cause": cause}


def calls() -> st.SearchStrategy[dict[str, Any]]:
    """A call with one odd thing, which ``cause`` names."""
    integer, number = {"type": "integer"}, {"type": "number"}
    return st.one_of(
        st.builds(lambda name, value: _given(name, "a", integer, value, "name of a tool"), NAMES, st.integers(0, 99)),
        st.builds(lambda key, value: _given(TOOL, key, integer, value, "key"), ODD_KEYS, st.integers(0, 99)),
        st.builds(lambda key, value: _given(TOOL, key, {"type": "string"}, value, "key"), ODD_KEYS, WORDS),
        st.builds(lambda key, value: _given(TOOL, key, integer, value, "long integer"), KEYS, LONG),
        st.builds(lambda key, value: _given(TOOL, key, number, value, "long integer as a number"), KEYS, LONG),
        st.builds(lambda key, value: _given(TOOL, key, number, value, "exponent"), KEYS, EXPONENTS),
        st.builds(
            lambda key, value: _given(TOOL, key, integer, value, "exponent of an integer"),
            KEYS,
            EXPONENTS.filter(float.is_integer),
        ),
        st.builds(lambda key, value: _given(TOOL, key, number, value, "fraction"), KEYS, FLOATS | st.just(-0.0)),
    )
