"""Which keywords of a JSON Schema lead to a value: they name the kind of a finding."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Path = Sequence[str | int]
UNDECLARED = "no schema"
_DEEP = 12  # references that are followed, so that a circle ends
_BRANCHES = ("anyOf", "oneOf", "allOf")
_SINGLE = ("then", "else")
_NAMED = ("dependentSchemas",)


def route(schema: Mapping[str, Any], path: Path) -> tuple[str, ...]:
    """The keywords on the way to the value at this path beside ``properties``, ``items`` and one ``type``.

    ``below $ref`` if the reference leads to an object or array that holds the value, ``$ref`` if it leads to the value.
    A value whose schema has one type, on a way of plain properties and items, has no keyword.
    """
    found = next(iter(_routes(schema, schema, list(path), 0)), (UNDECLARED,))
    return tuple(dict.fromkeys(found))


def _routes(root: Any, node: Any, path: Path, depth: int) -> Iterator[tuple[str, ...]]:
    """Every way to the value; the plainest comes first."""
    if depth > _DEEP or not isinstance(node, Mapping):
        if not path and isinstance(node, bool):
            yield ("no type",)
        return
    if not path and (end := _end(node)) is not None:
        yield end
        return
    if path:
        for keyword, child in _steps(node, path[0]):
            for rest in _routes(root, child, path[1:], depth):
                yield (*([keyword] if keyword else []), *rest)
    for keyword, child in _applied(root, node):
        for rest in _routes(root, child, path, depth + 1):
            yield (f"below {keyword}" if path else keyword, *rest)
    if not path:
        yield ("no type",)


def _end(node: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The keyword that says what a value is; none if only other keywords or nothing can say it."""
    if "type" in node:
        several = isinstance(node["type"], list)
        return ("type list",) if several else ("nullable",) if node.get("nullable") else ()
    return ("const",) if "const" in node else ("enum",) if "enum" in node else None


def _steps(node: Mapping[str, Any], step: str | int) -> Iterator[tuple[str, Any]]:
    """The subschemas for a key or an index, each with its keyword; the keyword is empty if it is a plain one."""
    if isinstance(step, int):
        prefix = node.get("prefixItems", [])
        if step < len(prefix):
            yield "prefixItems", prefix[step]
        elif "items" in node:
            yield "", node["items"]
        if "unevaluatedItems" in node:
            yield "unevaluatedItems", node["unevaluatedItems"]
        return
    if step in node.get("properties", {}):
        yield "", node["properties"][step]
    for pattern, child in node.get("patternProperties", {}).items():
        if _matches(pattern, step):
            yield "patternProperties", child
    for keyword in ("additionalProperties", "unevaluatedProperties"):
        if keyword in node:
            yield keyword, node[keyword]


def _matches(pattern: str, key: str) -> bool:
    try:
        return re.search(pattern, key) is not None
    except re.error:  # a pattern that only ECMAScript knows
        return False


def _applied(root: Any, node: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The subschemas for the same value, each with its keyword."""
    for keyword in ("$ref", "$dynamicRef"):
        reference = node.get(keyword)
        if isinstance(reference, str) and reference.startswith("#"):
            yield keyword, _resolve(root, reference)
    for keyword in _BRANCHES:
        yield from ((keyword, child) for child in node.get(keyword, ()))
    yield from ((keyword, node[keyword]) for keyword in _SINGLE if keyword in node)
    for keyword in _NAMED:
        yield from ((keyword, child) for child in node.get(keyword, {}).values())


def _resolve(root: Any, reference: str) -> Any:
    node = root
    for part in reference.lstrip("#").split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~").replace("%25", "%").replace("%22", '"')
        try:
            node = node[int(key)] if isinstance(node, list) else node[key]
        except (KeyError, IndexError, ValueError, TypeError):
            return None
    return node
