"""Chats whose right answer is known: what is wrong with the answers, in sentences."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from jsonschema import Draft202012Validator

from conformance.errors import ObservationError
from conformance.formats.canonical_json import canonical_json, same_json
from conformance.formats.toml_tables import convert
from conformance.formats.tool_call_deltas import add_to_call
from conformance.workload.chat_cases import Case

SPECIAL = re.compile(r'<\|?(?:channel|tool_call|tool_response|tool|turn|think|"|image|audio)\|?>|<(?:pad|bos|eos|unk)>')
SERVERS = {"mtp": "with MTP", "plain": "without MTP"}
MAY_STOP = ("stop", "tool_calls")  # OpenAI ends a forced call with "stop"


@dataclass(frozen=True)
class Call:
    """One tool call, put together from its deliveries; arguments are the text that came."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class Answer:
    """One answer, put together; ``way`` says how it was asked for."""

    case: Case
    server: str
    way: str
    content: str
    reasoning: str
    calls: tuple[Call, ...]
    finish_reason: str | None
    error: str

    @property
    def where(self) -> str:
        """How a sentence speaks of it."""
        return f"{self.case.id} {self.way} {SERVERS[self.server]}"

    @property
    def said(self) -> tuple[Any, ...]:
        """What must not depend on how it was asked for."""
        return self.content.strip(), self.reasoning.strip(), tuple(_spelled(call) for call in self.calls)


@dataclass(frozen=True)
class Chat:
    """The ``chat`` observations of some groups."""

    answers: tuple[Answer, ...]
    source: str

    @classmethod
    def of(cls, documents: Sequence[Mapping[str, Any]]) -> Self:
        """Read the observations; ObservationError where nothing of a group was asked with MTP."""
        for document in documents:
            if not any(row["server"] == "mtp" for row in document["answers"]):
                raise ObservationError(f"no case of the group {document['group']} was asked with MTP")
        answers = tuple(answer for document in documents for answer in _answers(document))
        return cls(answers, ", ".join(f"observations/chat-{document['group']}.json" for document in documents))

    def calling(self) -> Self:
        """Only the answers that should hold tool calls."""
        return replace(self, answers=tuple(answer for answer in self.answers if answer.case.expected.calls))

    @property
    def trials(self) -> int:
        """Answers with MTP; those without are their control."""
        return sum(answer.server == "mtp" for answer in self.answers)

    def objections(self) -> list[str]:
        """One sentence for each answer with MTP that is wrong, and whether the server without it has the same fault."""
        judged, control = self._judged(), defaultdict[str, list[str]](list)
        for answer, problems in judged:
            if answer.server == "plain":
                control[answer.case.id] += problems
        return [
            f"{_sentence(answer, problems)}{_compared(problems, control.get(answer.case.id))}"
            for answer, problems in judged
            if answer.server == "mtp" and problems
        ]

    @property
    def note(self) -> str:
        """What is wrong without MTP alone: no fault of MTP, but its reader should know."""
        found = [(answer, problems) for answer, problems in self._judged() if problems]
        faulty = {answer.case.id for answer, _ in found if answer.server == "mtp"}
        alone = [_sentence(answer, problems) for answer, problems in found if answer.case.id not in faulty]
        more = f"; and {len(alone) - 1} more" if len(alone) > 1 else ""
        return f"wrong without MTP only: {alone[0]}{more}" if alone else ""

    def _judged(self) -> list[tuple[Answer, list[str]]]:
        """Every answer with what is wrong with it by itself, or else beside the right ones to its case."""
        judged, right = [(answer, wrong(answer)) for answer in self.answers], defaultdict[str, list[Answer]](list)
        for answer, problems in judged:
            if not problems:
                right[answer.case.id].append(answer)
        return [(answer, problems or _contradictions(answer, right[answer.case.id])) for answer, problems in judged]


Chats = Callable[..., Chat]  # the cases of some groups by their names


def wrong(answer: Answer) -> list[str]:
    """Everything that is wrong with one answer by itself."""
    if answer.error:
        return [answer.error]
    return [problem for rule in RULES for problem in rule(answer)]


def _contradictions(answer: Answer, right: Sequence[Answer]) -> list[str]:
    """Where a right answer leaves those without MTP, or, if they do not agree, the first with it."""
    mtp, plain = ([each for each in right if each.server == server] for server in SERVERS)
    agreed = all(each.said == plain[0].said for each in plain)
    reference = (plain + mtp if agreed else mtp + plain)[0]
    if answer.said == reference.said:
        return []
    return [f"says {_shown(answer)}, but {reference.way} {SERVERS[reference.server]} {_shown(reference)}"]


def _sentence(answer: Answer, problems: Sequence[str]) -> str:
    return f"{answer.where}: {' and '.join(problems)}"


def _compared(problems: Sequence[str], control: Collection[str] | None) -> str:
    """Whether the server without MTP has the same problems with the case; nothing where it was not asked."""
    if control is None:
        return ""
    if set(problems) <= set(control):
        return " (the same without MTP)"
    return " (wrong without MTP too)" if control else " (right without MTP)"


# --- the rules ----------------------------------------------------------------------------------------------


def no_raw_token(answer: Answer) -> Iterator[str]:
    """No special token in any field, ever, and no thought outside its field."""
    fields = {"content": answer.content, "reasoning": answer.reasoning}
    for place, call in enumerate(answer.calls, 1):
        fields |= {f"the name of call {place}": call.name, f"the arguments of call {place}": call.arguments}
    for name, text in fields.items():
        if found := SPECIAL.search(text):
            yield f"raw {found.group()} in {name}: {_cut(text)}"
    if answer.content.startswith("thought\n"):
        yield f"a thought in content: {_cut(answer.content)}"


def calls_as_asked(answer: Answer) -> Iterator[str]:
    """As many calls as asked for, each with an id of its own, JSON arguments, valid and equal to what was asked."""
    expected = answer.case.expected.calls
    ids = [call.id for call in answer.calls]
    if len(answer.calls) != len(expected):
        yield f"{len(answer.calls)} calls where {len(expected)} were asked for{_instead(answer)}"
    if not all(ids) or len(set(ids)) < len(ids):
        yield f"ids of calls are {ids}, not one for each"
    for place, (call, asked) in enumerate(zip(answer.calls, expected, strict=False), 1):
        yield from _call_problems(place, call, asked, answer.case)


def _call_problems(place: int, call: Call, asked: Mapping[str, Any], case: Case) -> Iterator[str]:
    if call.name != asked["name"]:
        yield f"call {place} is of {call.name} where {asked['name']} was asked for"
    try:
        arguments = json.loads(call.arguments)
    except ValueError:
        yield f"the arguments of call {place} are not JSON: {_cut(call.arguments)}"
        return
    for error in Draft202012Validator(case.schema_of(call.name) or {}).iter_errors(arguments):
        yield f"the arguments of call {place} are not valid: {error.json_path} {_cut(error.message)}"
    if not same_json(arguments, asked["arguments"]):
        yield f"the arguments of call {place} are {_json(arguments)} where {_json(asked['arguments'])} was asked for"


def thoughts_as_told(answer: Answer) -> Iterator[str]:
    """Thoughts where thinking is on, none where it is off."""
    reasons = answer.case.expected.reasons
    if reasons and not answer.reasoning.strip():
        yield f"no thoughts, though thinking is on; content is {_cut(answer.content)}"
    if reasons is False and answer.reasoning:
        yield f"thoughts, though thinking is off: {_cut(answer.reasoning)}"


def text_as_asked(answer: Answer) -> Iterator[str]:
    """The content that was asked for, and none beside calls."""
    expected, content = answer.case.expected, answer.content.strip()
    if expected.calls and content:
        yield f"content beside the calls: {_cut(content)}"
    if expected.content is not None and content != expected.content.strip():
        yield f"content is {_cut(content)} where {_cut(expected.content)} was asked for"
    if expected.one_of and content not in expected.one_of:
        yield f"content is {_cut(content)}, none of the choices"
    if expected.pattern and not re.fullmatch(expected.pattern, content):
        yield f"content is {_cut(content)}, which /{expected.pattern}/ does not match"
    if expected.json is not None:
        yield from _json_problems(content, expected.json, answer.case)


def _json_problems(content: str, expected: Any, case: Case) -> Iterator[str]:
    try:
        value = json.loads(content)
    except ValueError:
        yield f"content is not JSON: {_cut(content)}"
        return
    wanted = case.schema_of_text()
    for error in Draft202012Validator(wanted).iter_errors(value):
        yield f"content does not follow its schema: {error.json_path} {_cut(error.message)}"
    if not same_json(value, expected):
        yield f"content is {_json(value)} where {_json(expected)} was asked for"


def ends_as_it_should(answer: Answer) -> Iterator[str]:
    """``tool_calls`` after calls, ``stop`` after text; a forced call may end with either."""
    forced = answer.case.tool_choice not in (None, "auto", "none")
    fitting = MAY_STOP if forced else ("tool_calls",) if answer.calls else ("stop",)
    if answer.finish_reason not in fitting:
        yield f"finish_reason is {answer.finish_reason} where {' or '.join(fitting)} is expected"


RULES: tuple[Callable[[Answer], Iterator[str]], ...] = (
    no_raw_token,
    calls_as_asked,
    thoughts_as_told,
    text_as_asked,
    ends_as_it_should,
)


# --- reading and spelling -----------------------------------------------------------------------------------


def _answers(document: Mapping[str, Any]) -> Iterator[Answer]:
    where = Path(f"observations/chat-{document['group']}.json")
    cases = {id: convert(where, row, Case) for id, row in document["cases"].items()}
    for row in document["answers"]:
        yield _answer(cases[row["case"]], row)


def _answer(case: Case, row: Mapping[str, Any]) -> Answer:
    parts: list[dict[str, str]] = []
    for message in row["messages"]:
        for delta in message["calls"]:
            add_to_call(parts, **delta)
    error = row["error"]
    status = f"HTTP {error['status']}: " if error and error["status"] else ""
    return Answer(
        case=case,
        server=row["server"],
        way=f"streamed by {row['interval']}" if row["interval"] else "whole",
        content="".join(message["content"] or "" for message in row["messages"]),
        reasoning="".join(message["reasoning"] or "" for message in row["messages"]),
        calls=tuple(Call(**part) for part in parts),
        finish_reason=row["finish_reason"],
        error=f"{status}{error['message']}" if error else "",
    )


def _spelled(call: Call) -> tuple[str, str]:
    try:
        return call.name, canonical_json(json.loads(call.arguments))
    except ValueError:
        return call.name, call.arguments


def _instead(answer: Answer) -> str:
    return f"; content is {_cut(answer.content)}" if answer.content.strip() else ""


def _shown(answer: Answer) -> str:
    calls = "".join(f" {call.name}({_cut(call.arguments)})" for call in answer.calls)
    thoughts = f" after thoughts {_cut(answer.reasoning)}" if answer.reasoning else ""
    return f"{_cut(answer.content)}{calls}{thoughts}"


def _json(value: Any) -> str:
    return _cut(json.dumps(value, ensure_ascii=False), 200)


def _cut(text: str, limit: int = 80) -> str:
    shown = repr(text) if not text.startswith(("{", "[")) else text
    return shown if len(shown) <= limit else f"{shown[: limit - 1]}…"
