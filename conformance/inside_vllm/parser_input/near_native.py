"""Answers that models write beside the template's own form, each with the calls that it means.

A form takes calls and writes them in its way. The calls are what a reader would understand. Where a form can be
understood in several ways, ``Answer.calls`` holds all of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hypothesis import strategies as st

from conformance.formats.gemma4_calls import CALL, CALL_END, CHANNEL, CHANNEL_END, QUOTE, Call
from conformance.inside_vllm.parser_input.tool_schemas import KEYS, PLAIN_WORDS

WORDS = (
    st.sampled_from(["Paris", "Paris, France", "ls -a", "a,b", "x: y", "fast", "ds 1"])
    | PLAIN_WORDS
    | st.builds("{}{}{}".format, PLAIN_WORDS, st.sampled_from([", ", ",", ": ", " - "]), PLAIN_WORDS)
)
TEXTS = ("Let me see.", "Now the other one.", "That is all.")  # before, between and after calls
THOUGHT = "I need a tool."
KINDS: dict[str, tuple[dict[str, Any], st.SearchStrategy[Any]]] = {
    "string": ({"type": "string"}, WORDS),
    "integer": ({"type": "integer"}, st.integers(0, 999)),
    "boolean": ({"type": "boolean"}, st.booleans()),
    "strings": ({"type": "array", "items": {"type": "string"}}, st.lists(WORDS, min_size=1, max_size=2)),
    "object": (
        {"type": "object", "properties": {"mode": {"type": "string"}}},
        st.fixed_dictionaries({"mode": WORDS}),
    ),
}


@dataclass(frozen=True)
class Spelling:
    """How a call is written; the defaults are the template's own form."""

    head: str = "call:"
    opening: str = "{"
    closing: str = "}"
    equals: str = ":"
    comma: str = ","
    quote: tuple[str, str] = (QUOTE, QUOTE)  # around a string
    inner_quote: tuple[str, str] | None = None  # around a string in an array or object, if it is another one
    key_quote: str = ""
    inner_key_quote: str = ""
    before: str = CALL
    after: str = CALL_END

    def write(self, call: Call) -> str:
        """The call with its two marks."""
        pairs = [self._pair(key, value, inner=False) for key, value in sorted(call.arguments.items())]
        body = self.comma.join(pairs)
        return f"{self.before}{self.head}{call.name}{self.opening}{body}{self.closing}{self.after}"

    def _pair(self, key: str, value: Any, inner: bool) -> str:
        quote = self.inner_key_quote if inner else self.key_quote
        return f"{quote}{key}{quote}{':' if inner else self.equals}{self._value(value, inner)}"

    def _value(self, value: Any, inner: bool) -> str:
        if isinstance(value, str):
            begin, end = self.inner_quote if inner and self.inner_quote else self.quote
            return f"{begin}{value}{end}"
        if isinstance(value, list):
            return f"[{self.comma.join(self._value(each, True) for each in value)}]"
        if isinstance(value, dict):
            return f"{{{self.comma.join(self._pair(key, each, True) for key, each in value.items())}}}"
        return json.dumps(value)


@dataclass(frozen=True)
class Answer:
    """An answer, the calls that it means with every meaning of each, its other text, and its thoughts."""

    text: str
    calls: tuple[tuple[Call, ...], ...]
    texts: tuple[str, ...] = ()
    thoughts: tuple[str, ...] = ()


Form = Callable[[Sequence[Call]], Answer]
NATIVE = Spelling()


def _spelled(spelling: Spelling) -> Form:
    """The first call in this spelling, the others in the template's own."""

    def write(calls: Sequence[Call]) -> Answer:
        text = spelling.write(calls[0]) + "".join(map(NATIVE.write, calls[1:]))
        return Answer(text, tuple((call,) for call in calls))

    return write


def _texts_around(calls: Sequence[Call]) -> Answer:
    parts = [
        TEXTS[0],
        *(each for call, text in zip(calls, TEXTS[1:], strict=False) for each in (NATIVE.write(call), text)),
    ]
    return Answer("".join(parts), tuple((call,) for call in calls), TEXTS[: len(calls) + 1])


def _fenced(calls: Sequence[Call]) -> Answer:
    text = "```tool_code\n" + "".join(map(NATIVE.write, calls)) + "\n```"
    return Answer(text, tuple((call,) for call in calls), ("```tool_code", "```"))


def _in_a_thought(calls: Sequence[Call]) -> Answer:
    text = f"{CHANNEL}thought\n{THOUGHT}{''.join(map(NATIVE.write, calls))}{CHANNEL_END}{TEXTS[2]}"
    return Answer(text, tuple((call,) for call in calls), TEXTS[2:], (THOUGHT,))


def _after_a_thought_without_mark(calls: Sequence[Call]) -> Answer:
    text = f"{CHANNEL}thought\n{THOUGHT}{CHANNEL_END}{replace(NATIVE, before='').write(calls[0])}"
    return Answer(text, ((calls[0],),), (), (THOUGHT,))


def _repeated_key(calls: Sequence[Call]) -> Answer:
    """The first key once more; the first value may count, or the last."""
    first = calls[0]
    key = min(first.arguments)
    text = NATIVE.write(first).replace("{", "{" + NATIVE._pair(key, 0, inner=False) + ",", 1)
    return Answer(text, ((first, Call(first.name, {**first.arguments, key: 0})),))


def _as_json(calls: Sequence[Call]) -> Answer:
    text = "".join(
        CALL + json.dumps({"name": each.name, "arguments": dict(sorted(each.arguments.items()))}) + CALL_END
        for each in calls
    )
    return Answer(text, tuple((call,) for call in calls))


def _unknown_tool(calls: Sequence[Call]) -> Answer:
    return _spelled(NATIVE)([Call("no_such_tool", {key: str(each) for key, each in calls[0].arguments.items()})])


def _nothing_between_marks(calls: Sequence[Call]) -> Answer:
    return Answer(CALL + CALL_END + "".join(map(NATIVE.write, calls)), tuple((call,) for call in calls))


def _only_a_name(calls: Sequence[Call]) -> Answer:
    return Answer(f"{CALL}call:{calls[0].name}{CALL_END}", ((Call(calls[0].name, {}),),))


def _no_prefix_no_arguments(calls: Sequence[Call]) -> Answer:
    return Answer(f"{CALL}{calls[0].name}{{}}{CALL_END}", ((Call(calls[0].name, {}),),))


_JSON_QUOTES, _PYTHON_QUOTES = ('"', '"'), ("'", "'")
FORMS: dict[str, Form] = {
    "JSON quotes": _spelled(replace(NATIVE, quote=_JSON_QUOTES, key_quote='"', inner_key_quote='"')),
    "JSON quotes inside": _spelled(replace(NATIVE, inner_quote=_JSON_QUOTES, inner_key_quote='"')),
    "Python quotes inside": _spelled(replace(NATIVE, inner_quote=_PYTHON_QUOTES, inner_key_quote="'")),
    "marks around keys": _spelled(replace(NATIVE, key_quote=QUOTE, inner_key_quote=QUOTE)),
    "no opening mark": _spelled(replace(NATIVE, quote=("", QUOTE))),
    "no closing mark": _spelled(replace(NATIVE, quote=(QUOTE, ""))),
    "no marks": _spelled(replace(NATIVE, quote=("", ""))),
    "doubled marks": _spelled(replace(NATIVE, quote=(QUOTE * 2, QUOTE * 2))),
    "blanks": _spelled(replace(NATIVE, equals=": ", comma=", ", opening="{ ", closing=" }")),
    "blanks around the name": _spelled(replace(NATIVE, head="call: ", opening=" {")),
    "line breaks": _spelled(replace(NATIVE, comma=",\n", opening="{\n", closing="\n}", before=CALL + "\n")),
    "parentheses": _spelled(replace(NATIVE, opening="(", closing=")")),
    "parentheses and equals signs": _spelled(replace(NATIVE, opening="(", closing=")", equals="=")),
    "equals signs": _spelled(replace(NATIVE, equals="=")),
    "no call:": _spelled(replace(NATIVE, head="")),
    "no call: and no arguments": _no_prefix_no_arguments,
    "no call, only a colon": _spelled(replace(NATIVE, head=":")),
    "JSON instead of a call": _as_json,
    "no closing brace": _spelled(replace(NATIVE, closing="")),
    "doubled closing brace": _spelled(replace(NATIVE, closing="}}")),
    "comma at the end": _spelled(replace(NATIVE, closing=",}")),
    "doubled call marks": _spelled(replace(NATIVE, before=CALL * 2, after=CALL_END * 2)),
    "no end of the call": _spelled(replace(NATIVE, after="")),
    "no begin of the call": _spelled(replace(NATIVE, before="")),
    "no begin of the call after a thought": _after_a_thought_without_mark,
    "markdown fence": _fenced,
    "text around calls": _texts_around,
    "call in a thought": _in_a_thought,
    "unknown tool": _unknown_tool,
    "repeated key": _repeated_key,
    "nothing between the call marks": _nothing_between_marks,
    "only a name": _only_a_name,
}
NAMES = st.sampled_from(["search", "terminal", "mcp.calendar:list_events", "get-weather"]) | st.builds(
    "{}{}{}".format, KEYS, st.sampled_from(["", ".", ":", "/", "-", "_"]), KEYS
)

# Made once: Hypothesis checks a new strategy before it draws from it.
_SOME_NAMES = st.lists(NAMES, min_size=1, max_size=2, unique=True)
_SOME_KINDS = st.dictionaries(KEYS, st.sampled_from(list(KINDS)), min_size=1, max_size=2)


@st.composite
def calls(draw: st.DrawFn) -> tuple[list[dict[str, Any]], list[Call]]:
    """One or two calls, and their tools as names with schemas of parameters."""
    tools, made = [], []
    for name in draw(_SOME_NAMES):
        kinds = draw(_SOME_KINDS)
        properties = {key: KINDS[kind][0] for key, kind in kinds.items()}
        tools.append({"name": name, "parameters": {"type": "object", "properties": properties}})
        made.append(Call(name, {key: draw(KINDS[kind][1]) for key, kind in kinds.items()}))
    return tools, made
