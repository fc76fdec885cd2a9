"""Schemas of tools' parameters as the world writes them, with valid arguments, as Hypothesis strategies.

Schema and arguments are drawn together: so both vary, and every drawn instance is valid. hypothesis-jsonschema draws
instances of a given schema only, and knows neither prefixItems nor recursive references.
"""

from __future__ import annotations

import json
import string
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st


@dataclass(frozen=True)
class Shape:
    """A schema, a strategy of its values, the definitions that it refers to, and whether null may be valid."""

    schema: Any
    values: st.SearchStrategy[Any]
    defs: Mapping[str, Any] = field(default_factory=dict)
    nullable: bool = False


Drawn = tuple[dict[str, Any], dict[str, Any]]  # the schema of a tool's parameters, and valid arguments

KEYS = st.from_regex(r"[a-z][a-z0-9_]{0,7}", fullmatch=True)
WORDS = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="<|>"), max_size=12)
PLAIN_WORDS = st.text(string.ascii_letters + string.digits + " ,:", min_size=1, max_size=12).map(str.strip).filter(bool)
INTEGERS = st.integers(-(10**15), 10**15)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
LOOKALIKES = st.sampled_from(["null", "3", "true", "3.5", "None", "[]"])  # strings that look like other values
DEFINITIONS = ("$defs", "definitions")  # since draft 2019-09, and before
FORMATS = {
    "date-time": st.datetimes().map(lambda moment: moment.isoformat(timespec="seconds") + "Z"),
    "date": st.dates().map(str),
    "uuid": st.uuids().map(str),
    "ipv4": st.ip_addresses(v=4).map(str),
    "uri": KEYS.map("https://example.org/{}?a=1&b=[2]".format),
    "email": KEYS.map("{}@example.org".format),
}


def scalars() -> st.SearchStrategy[Shape]:
    """A value whose schema has one type."""
    kinds = {"integer": INTEGERS, "number": FLOATS, "boolean": st.booleans(), "null": st.none(), "string": WORDS}
    return st.sampled_from([Shape({"type": kind}, values) for kind, values in kinds.items()])


def one_type() -> st.SearchStrategy[Shape]:
    """An integer, a number or a boolean: a wrong string shows at once."""
    kinds = {"integer": INTEGERS, "number": FLOATS, "boolean": st.booleans()}
    return st.sampled_from([Shape({"type": kind}, values) for kind, values in kinds.items()])


def objects(inner: st.SearchStrategy[Shape]) -> st.SearchStrategy[Shape]:
    """An object with one or two declared properties."""
    return st.dictionaries(KEYS, inner, min_size=1, max_size=2).map(_object)


def _object(inside: Mapping[str, Shape]) -> Shape:
    schema = {"type": "object", "properties": {key: each.schema for key, each in inside.items()}}
    defs = {name: each for shape in inside.values() for name, each in shape.defs.items()}
    return Shape(schema, st.fixed_dictionaries({key: each.values for key, each in inside.items()}), defs)


def _arrays(inner: st.SearchStrategy[Shape]) -> st.SearchStrategy[Shape]:
    return inner.map(
        lambda each: Shape(
            {"type": "array", "items": each.schema}, st.lists(each.values, min_size=1, max_size=3), each.defs
        )
    )


def referred(inner: st.SearchStrategy[Shape]) -> st.SearchStrategy[Shape]:
    """``$ref`` to a definition, as pydantic writes nested models and enums."""

    def around(each: Shape, where: str) -> Shape:
        name = f"Model{zlib.crc32(json.dumps(each.schema).encode()) % 1000}"  # another schema gets another name
        defs = {**each.defs, f"{where}/{name}": each.schema}
        return Shape({"$ref": f"#/{where}/{name}"}, each.values, defs, each.nullable)

    return st.builds(around, inner, st.sampled_from(DEFINITIONS))


def combined(inner: st.SearchStrategy[Shape]) -> st.SearchStrategy[Shape]:
    """``anyOf`` and ``oneOf`` with null, and ``allOf`` with one part: the spellings of pydantic and of zod."""

    def around(each: Shape, keyword: str) -> Shape:
        if keyword == "allOf":
            return Shape({"allOf": [each.schema], "description": "as above"}, each.values, each.defs, each.nullable)
        twice = keyword == "oneOf" and each.nullable  # then null matches both, which oneOf does not allow
        values = each.values.filter(lambda value: value is not None) if twice else each.values | st.none()
        return Shape({keyword: [each.schema, {"type": "null"}]}, values, each.defs, nullable=True)

    notnull = inner.filter(lambda each: each.schema not in ({"type": "null"}, {"const": None}, {"enum": [None]}))
    return st.builds(around, notnull, st.sampled_from(["anyOf", "oneOf", "allOf"]))


def keyed(inner: st.SearchStrategy[Shape]) -> st.SearchStrategy[Shape]:
    """Objects whose keys are not declared: ``additionalProperties``, as of a dict, and ``patternProperties``."""

    def around(each: Shape, pattern: str | None) -> Shape:
        rest = (
            {"additionalProperties": each.schema} if pattern is None else {"patternProperties": {pattern: each.schema}}
        )
        return Shape({"type": "object", **rest}, st.dictionaries(KEYS, each.values, min_size=1, max_size=2), each.defs)

    return st.builds(around, inner, st.sampled_from([None, "^[a-z]"]))


def tuples(inner: st.SearchStrategy[Shape]) -> st.SearchStrategy[Shape]:
    """``prefixItems``, as pydantic writes a tuple."""

    def around(first: Shape, second: Shape) -> Shape:
        schema = {"type": "array", "prefixItems": [first.schema, second.schema], "minItems": 2, "maxItems": 2}
        return Shape(schema, st.tuples(first.values, second.values).map(list), {**first.defs, **second.defs})

    return st.builds(around, inner, inner)


def literals() -> st.SearchStrategy[Shape]:
    """``const`` without a type, ``enum`` of mixed types, and both with one."""
    anything = INTEGERS | st.booleans() | st.none() | PLAIN_WORDS
    consts = anything.map(lambda value: Shape({"const": value}, st.just(value), nullable=True))
    enums = st.lists(anything, min_size=1, max_size=3).map(
        lambda some: Shape({"enum": some}, st.sampled_from(some), nullable=True)
    )
    return consts | enums


def optional() -> st.SearchStrategy[Shape]:
    """Null beside a type in the other spellings: a list of types, and ``nullable`` of OpenAPI 3.0."""

    def spell(each: Shape, is_list: bool) -> Shape:
        kind = each.schema["type"]
        schema = {"type": [kind, "null"]} if is_list else {"type": kind, "nullable": True}
        values = each.values | LOOKALIKES if kind == "string" else each.values
        return Shape(schema, values | st.none() if is_list else values, each.defs, is_list)

    return st.builds(spell, scalars().filter(lambda each: each.schema["type"] != "null"), st.booleans())


def untyped() -> st.SearchStrategy[Shape]:
    """No type at all: an empty schema, a description, or true."""
    values = INTEGERS | st.booleans() | st.none() | WORDS | LOOKALIKES
    return st.sampled_from([{}, {"description": "anything"}, True]).map(
        lambda schema: Shape(schema, values, nullable=True)
    )


def formats() -> st.SearchStrategy[Shape]:
    """Strings with a format."""
    rows = [Shape({"type": "string", "format": name}, values) for name, values in FORMATS.items()]
    return st.sampled_from(rows)


def recursive() -> st.SearchStrategy[Shape]:
    """A node with a value and perhaps a next node, as a schema that refers to itself."""
    where = "$defs/Node"
    schema = {
        "type": "object",
        "properties": {"value": {"type": "integer"}, "next": {"anyOf": [{"$ref": f"#/{where}"}, {"type": "null"}]}},
        "required": ["value"],
    }
    ends = st.fixed_dictionaries({"value": INTEGERS})
    values = st.recursive(ends, lambda node: st.fixed_dictionaries({"value": INTEGERS, "next": node}), max_leaves=3)
    return st.just(Shape({"$ref": f"#/{where}"}, values, {where: schema}))


def shapes() -> st.SearchStrategy[Shape]:
    """A value in any of these forms: one keyword around plain types, or two, one inside the other."""
    plain = one_type() | objects(one_type()) | _arrays(one_type())
    leaves = literals() | optional() | untyped() | formats() | recursive()
    once = referred(plain) | combined(plain) | keyed(plain) | tuples(plain) | objects(leaves) | leaves
    twice = referred(once) | combined(once) | keyed(once) | tuples(once) | _arrays(once) | objects(once)
    return plain | once | twice


@st.composite
def parameters(draw: st.DrawFn, inner: st.SearchStrategy[Shape]) -> Drawn:
    """The schema of a tool's parameters, and valid arguments."""
    shape = _object(draw(st.dictionaries(KEYS, inner, min_size=1, max_size=2)))
    schema = dict(shape.schema)
    for place, each in shape.defs.items():
        where, name = place.split("/")
        schema.setdefault(where, {})[name] = each
    return schema, draw(shape.values)
