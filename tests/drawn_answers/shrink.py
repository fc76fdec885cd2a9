"""The shortest input of a kind: parts of an input are removed or made simpler as long as the same finding stays."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from conformance.formats.gemma4_calls import CALL, CALL_END, NotNative, read_call
from conformance.formats.json_schema import violations
from conformance.inside_vllm.answer_trials import Given
from conformance.inside_vllm.parser_input import near_native, odd_names, tool_schemas

EDITED = {
    "schemas": ("schema", "arguments", "sizes"),
    "names": ("name", "schema", "arguments", "sizes"),
    "near_native": ("tools", "calls", "sizes"),
    "cut": ("tokens", "sizes"),
}
_RESERVED = {*odd_names.SCHEMA_WORDS, *near_native.KINDS, "mode", "number", "array", "form", "tools"}  # never renamed
_ONE_TYPE = [schema for schema, _ in near_native.KINDS.values()]


def shrink(property: str, given: Given, shows: Callable[[Given], bool]) -> Given:
    """The smallest input that small steps reach; ``shows`` tells whether an input has the finding."""
    tried = {_text(given)}
    while True:
        for smaller in sorted(_smaller(property, given), key=_rank):
            text = _text(smaller)
            if text in tried or _rank(smaller) >= _rank(given):
                continue
            tried.add(text)
            if _shows(property, smaller, shows):
                given = smaller
                break
        else:
            return given


def _rank(given: Given) -> tuple[int, str]:
    """The shorter first, and of two as short the one with the lower letters and digits."""
    return len(_text(given)), _text(given)


def is_valid(property: str, given: Given) -> bool:
    """Whether it is an input that could be drawn: arguments are valid, and calls are of their tools."""
    if not all(size > 0 for size in given["sizes"]) or not given["sizes"]:
        return False
    if property in ("schemas", "names"):
        plain = property == "schemas" or all(each.keys() == {"type"} for each in given["schema"]["properties"].values())
        return plain and bool(given.get("name", "f")) and _fit(given["schema"], given["arguments"])
    if property == "cut":
        return bool(given["tokens"] > 0)
    tools = {tool["name"]: tool["parameters"] for tool in given["tools"]}
    calls = given["calls"]
    return (
        [call["name"] for call in calls] == list(tools)
        and all(each in _ONE_TYPE for schema in tools.values() for each in schema["properties"].values())
        and all(call["arguments"] and _fit(tools[call["name"]], call["arguments"]) for call in calls)
        and all(text and text == text.strip() for call in calls for text in _strings(call["arguments"]))
    )


def _fit(schema: Any, arguments: Any) -> bool:
    declared = schema["type"] == "object" and arguments.keys() <= schema["properties"].keys()
    return declared and not list(violations(schema, arguments))


def _shows(property: str, given: Given, shows: Callable[[Given], bool]) -> bool:
    try:
        return is_valid(property, given) and shows(given)
    except Exception:  # what is no input at all does not show the finding
        return False


def _smaller(property: str, given: Given) -> Iterator[Given]:
    """Inputs that differ in one step; not all of them are valid."""
    for key in EDITED[property]:
        if key in given:
            yield from ({**given, key: each} for each in _edits(given[key]))
    for name in sorted(_names(given)):
        for short in "abcd":
            yield json.loads(re.sub(rf'(?<=["/]){re.escape(name)}(?=")', short, json.dumps(given)))
    if property == "near_native":
        yield from _without_one_argument(given)
    if property == "cut":
        yield from _shorter_calls(given)


def _names(given: Given) -> set[str]:
    """The names that may be any other: of tools, definitions and arguments, except words of JSON Schema."""
    definitions = [given.get("schema", {}).get(word, {}) for word in tool_schemas.DEFINITIONS]
    calls = given.get("calls", [])
    found = {call["name"] for call in calls}
    for each in (*definitions, given.get("arguments"), *(call["arguments"] for call in calls)):
        found |= set(_keys(each))
    return {name for name in found if len(name) > 1} - _RESERVED


def _keys(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield from value
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _keys(each)


def _edits(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for key, each in value.items():
            rest = {other: kept for other, kept in value.items() if other != key}
            yield rest
            yield from ({**value, key: edited} for edited in _edits(each))
    elif isinstance(value, list):
        for at, each in enumerate(value):
            yield value[:at] + value[at + 1 :]
            yield from ([*value[:at], edited, *value[at + 1 :]] for edited in _edits(each))
    elif isinstance(value, str):
        yield from (value[: len(value) // 2], value[len(value) // 2 :], value[1:], value[:-1], "a", "0")
    elif isinstance(value, bool) or value is None:
        yield from (0, 1)
    elif isinstance(value, (int, float)):
        yield from (0, 1, int(value), abs(value), value // 10, value - 1)


def _without_one_argument(given: Given) -> Iterator[Given]:
    """A tool with its call, or a parameter with its argument, goes at once: either alone would be no input."""
    for at, (tool, call) in enumerate(zip(given["tools"], given["calls"], strict=True)):
        yield {**given, **{part: given[part][:at] + given[part][at + 1 :] for part in ("tools", "calls")}}
        for key in call["arguments"]:
            properties = {name: each for name, each in tool["parameters"]["properties"].items() if name != key}
            arguments = {name: each for name, each in call["arguments"].items() if name != key}
            yield _with(given, at, properties, arguments)
            yield _with(given, at, {**properties, key: {"type": "integer"}}, {**arguments, key: 0})


def _with(given: Given, at: int, properties: dict[str, Any], arguments: dict[str, Any]) -> Given:
    tools, calls = list(given["tools"]), list(given["calls"])
    tools[at] = {**tools[at], "parameters": {"type": "object", "properties": properties}}
    calls[at] = {**calls[at], "arguments": arguments}
    return {**given, "tools": tools, "calls": calls}


def _shorter_calls(given: Given) -> Iterator[Given]:
    """The same for a text of calls alone: they are read, made shorter, and written again, cut after any token."""
    parts = [part.partition(CALL_END) for part in given["text"].split(CALL)[1:]]
    try:
        calls = [read_call(part[0]) for part in parts]
    except NotNative:
        return
    if "".join(map(near_native.NATIVE.write, calls)) != given["text"]:
        return
    for arguments in _edits([call.arguments for call in calls]):
        if len(arguments) != len(calls) or not all(isinstance(each, dict) for each in arguments):
            continue
        made = [near_native.Call(call.name, each) for call, each in zip(calls, arguments, strict=True)]
        text = "".join(map(near_native.NATIVE.write, made))
        yield from ({**given, "text": text, "tokens": tokens} for tokens in range(1, given["tokens"] + 1))
    if len(calls) > 1:
        for call in calls:
            text = near_native.NATIVE.write(call)
            yield from ({**given, "text": text, "tokens": tokens} for tokens in range(1, given["tokens"] + 1))


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from (text for each in value.values() for text in _strings(each))
    elif isinstance(value, list):
        yield from (text for each in value for text in _strings(each))


def _text(given: Given) -> str:
    return json.dumps(given, sort_keys=True)
