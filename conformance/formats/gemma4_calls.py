"""Gemma 4's syntax of a tool call, read as strictly as the chat template writes it.

``call:NAME{KEY:VALUE,…}`` between two tokens. A value is a string between two ``<|"|>``, a JSON number, true, false,
null, an array or an object. A key has no delimiters and no escape, so a key with a structural character cannot be
written. The text itself says the type of every value; no schema is needed to read it.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

QUOTE = '<|"|>'
CALL, CALL_END = "<|tool_call>", "<tool_call|>"
CHANNEL, CHANNEL_END = "<|channel>", "<channel|>"
MARKS = (CHANNEL, CHANNEL_END, CALL, CALL_END, QUOTE)

_HEAD = re.compile(r"call:([^\s{}()\[\],<>|]+)\{")
_KEY = re.compile(r"([^\s:,{}\[\]<>|](?:[^:,{}\[\]<>|]*[^\s:,{}\[\]<>|])?):")
_LITERAL = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?(?=[,}\]])|(?:true|false|null)(?=[,}\]])")
_QUOTED_KEY = re.compile(r"""(["']).*\1""", re.DOTALL)


class NotNative(Exception):
    """The text is not what the chat template would write. The message says where."""


@dataclass(frozen=True)
class Call:
    """A tool call: its name and its arguments as JSON values."""

    name: str
    arguments: dict[str, Any]


def read_call(text: str) -> Call:
    """The call between the two tokens that surround it.

    Raises:
        NotNative: the text is no call in the template's form.
    """
    head = _HEAD.match(text)
    if head is None:
        raise NotNative("no call:NAME{ at the begin")
    arguments, end = _read_object(text, head.end())
    if end != len(text):
        raise NotNative(f"text after the call at {end}")
    return Call(head[1], arguments)


def _read_object(text: str, at: int) -> tuple[dict[str, Any], int]:
    found: dict[str, Any] = {}
    if text.startswith("}", at):
        return found, at + 1
    while True:
        key = _KEY.match(text, at)
        if key is None or key[1] in found or _QUOTED_KEY.fullmatch(key[1]):
            raise NotNative(f"no new key at {at}")
        found[key[1]], at = _read_value(text, key.end())
        if text.startswith("}", at):
            return found, at + 1
        at = _after_comma(text, at)


def _read_array(text: str, at: int) -> tuple[list[Any], int]:
    found: list[Any] = []
    if text.startswith("]", at):
        return found, at + 1
    while True:
        value, at = _read_value(text, at)
        found.append(value)
        if text.startswith("]", at):
            return found, at + 1
        at = _after_comma(text, at)


def _after_comma(text: str, at: int) -> int:
    if not text.startswith(",", at):
        raise NotNative(f"no comma at {at}")
    return at + 1


def _read_value(text: str, at: int) -> tuple[Any, int]:
    if text.startswith(QUOTE, at):
        begin = at + len(QUOTE)
        end = text.find(QUOTE, begin)
        if end < 0:
            raise NotNative(f"a string without its end at {at}")
        return text[begin:end], end + len(QUOTE)
    if text.startswith("{", at):
        return _read_object(text, at + 1)
    if text.startswith("[", at):
        return _read_array(text, at + 1)
    literal = _LITERAL.match(text, at)
    if literal is None:
        raise NotNative(f"no value at {at}")
    return json.loads(literal[0]), literal.end()
