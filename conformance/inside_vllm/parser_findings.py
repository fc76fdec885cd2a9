"""What is wrong with a parsed answer: how bad it is, and its kind.

A kind is the harm and the cause, as in ``value changed: below $ref``. The cause is a part of the input: the keywords of
the schema that lead to the value, the form of the answer, or the place where it is cut.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from conformance.formats.canonical_json import keeps_json
from conformance.formats.gemma4_calls import CALL, CALL_END, MARKS, Call, NotNative, read_call
from conformance.inside_vllm.parser_input.near_native import Answer

CHANGED, LOST, LEAKED, REFUSED = "value changed", "lost in silence", "leaked mark", "refused visibly"
HARMS = (CHANGED, LOST, LEAKED, REFUSED)  # the worst comes first
Delivered = Mapping[str, Any]  # as ``parsing.as_json`` gives it: reasoning, content, calls
_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True)
class Wrong:
    """One thing that is wrong: its harm, and the path in the arguments where they differ (empty for the whole call)."""

    harm: str
    path: tuple[str | int, ...] = ()


def differences(expected: Any, found: Any, path: tuple[str | int, ...] = ()) -> Iterator[Wrong]:
    """Everything in which arguments differ from what is expected; the mark is worse hidden than a plain other value."""
    if isinstance(expected, Mapping) and isinstance(found, Mapping):
        for key in expected:
            if key in found:
                yield from differences(expected[key], found[key], (*path, key))
            else:
                yield Wrong(LOST, (*path, key))
        yield from (Wrong(_harm_of(key, expected), (*path, key)) for key in found if key not in expected)
    elif isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        for number, (one, other) in enumerate(zip(expected, found, strict=True)):
            yield from differences(one, other, (*path, number))
    elif not keeps_json(expected, found):
        yield Wrong(_harm_of(found, expected), path)


def _harm_of(found: Any, expected: Any) -> str:
    return LEAKED if marks_in(found) and not marks_in(expected) else CHANGED


def marks_in(value: Any) -> bool:
    """Whether a name, a key or a value holds a mark of the syntax."""
    text = value if isinstance(value, str) else repr(value)
    return any(mark in text for mark in MARKS)


def wrong_call(intended: Call, delivered: Mapping[str, Any]) -> list[Wrong]:
    """What is wrong with a delivered call."""
    name, arguments = delivered["name"], delivered["arguments"]
    if name != intended.name:
        return [Wrong(_harm_of(name, intended.name))]
    if not isinstance(arguments, Mapping):
        return [Wrong(_harm_of(arguments, ""))]
    return list(differences(intended.arguments, arguments))


def wrong_native(intended: Call, delivered: Delivered) -> list[Wrong]:
    """What is wrong with the delivery of one call in the template's own form."""
    if len(delivered["calls"]) == 1 and not delivered["content"] and not delivered["reasoning"]:
        return wrong_call(intended, delivered["calls"][0])
    if not delivered["calls"]:
        seen = words_follow(_text_of(intended), delivered["content"] + delivered["reasoning"])
        return [Wrong(REFUSED if seen else LOST)]
    return [Wrong(LEAKED if marks_in(delivered["content"]) else CHANGED)]


def wrong_answer(answer: Answer, delivered: Delivered) -> list[Wrong]:
    """What is wrong with the delivery of a near-native answer: its calls, or else their text, and all other text.

    A refusal that shows the text is in the result too, as ``refused visibly``; it is right for such an answer.
    """
    visible, wrong = delivered["content"] + "\n" + delivered["reasoning"], []
    rest = [dict(each) for each in delivered["calls"]]
    for meanings in _with_literal_meaning(answer):
        found = next((each for each in rest if any(not wrong_call(one, each) for one in meanings)), None)
        if found is not None:
            rest.remove(found)
        elif words_follow(_text_of(meanings[0]), visible):
            wrong.append(Wrong(REFUSED))
        elif rest:
            wrong.append(_worst(wrong_call(meanings[0], rest.pop(0))))
        else:
            wrong.append(Wrong(LOST))
    wrong += [Wrong(LEAKED if marks_in(each) else CHANGED) for each in rest]
    texts = (*answer.texts, *answer.thoughts)
    wrong += [Wrong(LOST) for text in texts if not words_follow(text, visible)]
    return wrong


def _with_literal_meaning(answer: Answer) -> list[tuple[Call, ...]]:
    """The meanings of each call, with what the text says in the template's own grammar, if it says something there."""
    meanings = list(answer.calls)
    texts = [part.split(CALL_END)[0] for part in answer.text.split(CALL)[1:]]
    for number, text in enumerate(texts if len(texts) == len(meanings) else ()):
        try:
            meanings[number] = (*meanings[number], read_call(text))
        except NotNative:
            continue
    return meanings


def _worst(wrong: Sequence[Wrong]) -> Wrong:
    """The worst harm of a call; a mark that leaked explains the other differences."""
    leaked = [each for each in wrong if each.harm == LEAKED]
    return min(leaked or wrong, key=lambda each: HARMS.index(each.harm))


def wrong_cut(complete: Sequence[Call], cut: Call | None, tail: str, delivered: Delivered) -> list[tuple[str, Wrong]]:
    """What is wrong with the calls of a cut answer, each with its cause.

    ``complete`` are the calls that the text ends, ``cut`` the one that it does not, and ``tail`` its text so far. An
    unfinished call is right: its name as a whole, with arguments that are no whole JSON.
    """
    calls = delivered["calls"]
    wrong = [
        ("complete call", each) for one, other in zip(complete, calls, strict=False) for each in wrong_call(one, other)
    ]
    wrong += [("complete call", Wrong(LOST)) for _ in complete[len(calls) :]]
    for extra in calls[len(complete) :]:
        finished = isinstance(extra["arguments"], Mapping)
        if cut is None or extra["name"] != cut.name:
            wrong.append(("cut name", Wrong(_harm_of(extra["name"], ""))))
        elif finished and not (tail.endswith("}") and not wrong_call(cut, extra)):
            wrong.append(("cut arguments", Wrong(CHANGED)))
    return wrong


def words_follow(part: str, whole: str) -> bool:
    """Whether the words of a text appear in another one in the same order."""
    rest = iter(_WORD.findall(whole))
    return all(word in rest for word in _WORD.findall(part))


def _text_of(call: Call) -> str:
    """The words of a call in the order in which the template writes them."""
    return " ".join([call.name, *_leaves(dict(sorted(call.arguments.items())))])


def _leaves(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield key
            yield from _leaves(each)
    elif isinstance(value, list):
        for each in value:
            yield from _leaves(each)
    else:
        yield value if isinstance(value, str) else json.dumps(value)
