"""Chats with known correct answers, and sentences for what is wrong with the answers."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from conformance.errors import ObservationError
from conformance.formats.canonical_json import canonical_json, same_json
from conformance.formats.json_files import parse_json
from conformance.formats.json_schema import violations
from conformance.formats.toml_tables import convert
from conformance.formats.tool_call_deltas import add_to_call
from conformance.workload.chat_cases import Case

SPECIAL = re.compile(r'<\|?(?:channel|tool_call|tool_response|tool|turn|think|"|image|audio)\|?>|<(?:pad|bos|eos|unk)>')
SERVERS = {"mtp": "with MTP", "plain": "without MTP"}
FORCED_CALL_ENDS = ("stop", "tool_calls")  # OpenAI ends a forced call with "stop"


@dataclass(frozen=True)
class Call:
    """One tool call, put together from its deltas; ``arguments`` is the text as received."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class Answer:
    """One answer, put together from its deltas; ``way`` says how it was requested."""

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
        """The name of this answer in a sentence."""
        return f"{self.case.id} ({self.how})"

    @property
    def how(self) -> str:
        """How and from which server the answer was requested."""
        return f"{self.way}, {SERVERS[self.server]}"

    @property
    def comparable(self) -> tuple[Any, ...]:
        """The parts of the answer that must not depend on how it was requested."""
        return self.content.strip(), self.reasoning.strip(), tuple(_canonical(call) for call in self.calls)


@dataclass(frozen=True)
class Chat:
    """The ``chat`` observations of some groups."""

    answers: tuple[Answer, ...]
    source: str

    @classmethod
    def of(cls, documents: Sequence[Mapping[str, Any]]) -> Self:
        """Read the observations.

        Raises:
            ObservationError: no case of a group was asked with MTP.
        """
        for document in documents:
            if not any(row["server"] == "mtp" for row in document["answers"]):
                raise ObservationError(f"no case of the group {document['group']} was asked with MTP")
        answers = tuple(answer for document in documents for answer in _answers(document))
        return cls(answers, ", ".join(f"observations/chat-{document['group']}.json" for document in documents))

    def with_calls(self) -> Self:
        """Only the answers that should hold tool calls."""
        return replace(self, answers=tuple(answer for answer in self.answers if answer.case.expected.calls))

    @property
    def trials(self) -> int:
        """The number of answers with MTP; answers without MTP are the control."""
        return sum(answer.server == "mtp" for answer in self.answers)

    def objections(self) -> list[str]:
        """A sentence for each wrong answer with MTP, which says whether the answer without MTP is wrong too."""
        judged, control = self._with_problems(), defaultdict[str, list[str]](list)
        for answer, problems in judged:
            if answer.server == "plain":
                control[answer.case.id] += problems
        return [
            f"{_sentence(answer, problems)}{_control_note(problems, control.get(answer.case.id))}"
            for answer, problems in judged
            if answer.server == "mtp" and problems
        ]

    @property
    def note(self) -> str:
        """What is wrong only without MTP. It is no fault of MTP, but the reader should know."""
        found = [(answer, problems) for answer, problems in self._with_problems() if problems]
        faulty = {answer.case.id for answer, _ in found if answer.server == "mtp"}
        alone = [_sentence(answer, problems) for answer, problems in found if answer.case.id not in faulty]
        more = f"; and {len(alone) - 1} more" if len(alone) > 1 else ""
        return f"wrong without MTP only: {alone[0]}{more}" if alone else ""

    def _with_problems(self) -> list[tuple[Answer, list[str]]]:
        """Each answer with its own problems or, if it has none, with its differences from other correct answers."""
        judged, right = [(answer, problems_of(answer)) for answer in self.answers], defaultdict[str, list[Answer]](list)
        for answer, problems in judged:
            if not problems:
                right[answer.case.id].append(answer)
        return [(answer, problems or _contradictions(answer, right[answer.case.id])) for answer, problems in judged]


def problems_of(answer: Answer) -> list[str]:
    """Everything that is wrong with one answer, without comparing it with others."""
    if answer.error:
        return [answer.error]
    return [problem for rule in RULES for problem in rule(answer)]


def _contradictions(answer: Answer, right: Sequence[Answer]) -> list[str]:
    """How a correct answer differs from those without MTP or, if those do not agree, from the first with MTP."""
    mtp, plain = ([each for each in right if each.server == server] for server in SERVERS)
    agreed = all(each.comparable == plain[0].comparable for each in plain)
    reference = (plain + mtp if agreed else mtp + plain)[0]
    if answer.comparable == reference.comparable:
        return []
    return [f"says {_describe(answer)}, but the other answer ({reference.how}) says {_describe(reference)}"]


def _sentence(answer: Answer, problems: Sequence[str]) -> str:
    return f"{answer.where}: {' and '.join(problems)}"


def _control_note(problems: Sequence[str], control: Collection[str] | None) -> str:
    """Whether the answer without MTP has the same problems; empty if the server without MTP was not asked."""
    if control is None:
        return ""
    if set(problems) <= set(control):
        return " (the same without MTP)"
    return " (wrong without MTP too)" if control else " (right without MTP)"


# --- the rules ----------------------------------------------------------------------------------------------


def check_special_tokens(answer: Answer) -> Iterator[str]:
    """No field contains a special token, and no thought is outside its field."""
    fields = {"content": answer.content, "reasoning": answer.reasoning}
    for place, call in enumerate(answer.calls, 1):
        fields |= {f"the name of call {place}": call.name, f"the arguments of call {place}": call.arguments}
    for name, text in fields.items():
        if found := SPECIAL.search(text):
            yield f"raw {found.group()} in {name}: {_cut(text)}"
    if answer.content.startswith("thought\n"):
        yield f"a thought in content: {_cut(answer.content)}"


def check_calls(answer: Answer) -> Iterator[str]:
    """The answer has the expected calls, each with its own id and with valid JSON arguments of the expected value."""
    expected = answer.case.expected.calls
    ids = [call.id for call in answer.calls]
    if len(answer.calls) != len(expected):
        yield f"{len(answer.calls)} calls where {len(expected)} were asked for{_content_note(answer)}"
    if not all(ids) or len(set(ids)) < len(ids):
        yield f"the ids of the calls are {ids}, but each call needs its own id"
    for place, (call, asked) in enumerate(zip(answer.calls, expected, strict=False), 1):
        yield from _call_problems(place, call, asked, answer.case)


def _call_problems(place: int, call: Call, asked: Mapping[str, Any], case: Case) -> Iterator[str]:
    if call.name != asked["name"]:
        yield f"call {place} calls {call.name} where {asked['name']} was asked for"
    try:
        arguments = parse_json(call.arguments)
    except ValueError:
        yield f"the arguments of call {place} are not JSON: {_cut(call.arguments)}"
        return
    for error in violations(case.schema_of(call.name) or {}, arguments):
        yield f"the arguments of call {place} are not valid: {error.json_path} {_cut(error.message)}"
    if not same_json(arguments, asked["arguments"]):
        yield f"the arguments of call {place} are {_json(arguments)} where {_json(asked['arguments'])} was asked for"


def check_thoughts(answer: Answer) -> Iterator[str]:
    """The answer has thoughts if thinking is on, and none if it is off."""
    reasons = answer.case.expected.reasons
    if reasons and not answer.reasoning.strip():
        yield f"no thoughts, though thinking is on; content is {_cut(answer.content)}"
    if reasons is False and answer.reasoning:
        yield f"thoughts, though thinking is off: {_cut(answer.reasoning)}"


def check_text(answer: Answer) -> Iterator[str]:
    """The content is the expected one, and there is none beside calls."""
    expected, content = answer.case.expected, answer.content.strip()
    if expected.calls and content:
        yield f"content beside the calls: {_cut(content)}"
    if expected.content is not None and content != expected.content.strip():
        yield f"content is {_cut(content)} where {_cut(expected.content)} was asked for"
    if expected.one_of and content not in expected.one_of:
        yield f"content is {_cut(content)}, which is none of the choices"
    if expected.pattern and not re.fullmatch(expected.pattern, content):
        yield f"content is {_cut(content)}, which /{expected.pattern}/ does not match"
    if expected.json is not None:
        yield from _json_problems(content, expected.json, answer.case)


def _json_problems(content: str, expected: Any, case: Case) -> Iterator[str]:
    try:
        value = parse_json(content)
    except ValueError:
        yield f"content is not JSON: {_cut(content)}"
        return
    wanted = case.schema_of_text()
    for error in violations(wanted, value):
        yield f"content does not follow its schema: {error.json_path} {_cut(error.message)}"
    if not same_json(value, expected):
        yield f"content is {_json(value)} where {_json(expected)} was asked for"


def check_finish_reason(answer: Answer) -> Iterator[str]:
    """The finish reason is ``tool_calls`` after calls and ``stop`` after text; a forced call may end with either."""
    forced = answer.case.tool_choice not in (None, "auto", "none")
    allowed = FORCED_CALL_ENDS if forced else ("tool_calls",) if answer.calls else ("stop",)
    if answer.finish_reason not in allowed:
        yield f"finish_reason is {answer.finish_reason} where {' or '.join(allowed)} is expected"


RULES: tuple[Callable[[Answer], Iterator[str]], ...] = (
    check_special_tokens,
    check_calls,
    check_thoughts,
    check_text,
    check_finish_reason,
)


# --- reading and writing ------------------------------------------------------------------------------------


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
        way=f"streamed with stream_interval {row['interval']}" if row["interval"] else "not streamed",
        content="".join(message["content"] or "" for message in row["messages"]),
        reasoning="".join(message["reasoning"] or "" for message in row["messages"]),
        calls=tuple(Call(**part) for part in parts),
        finish_reason=row["finish_reason"],
        error=f"{status}{error['message']}" if error else "",
    )


def _canonical(call: Call) -> tuple[str, str]:
    try:
        return call.name, canonical_json(parse_json(call.arguments))
    except ValueError:
        return call.name, call.arguments


def _content_note(answer: Answer) -> str:
    return f"; content is {_cut(answer.content)}" if answer.content.strip() else ""


def _describe(answer: Answer) -> str:
    calls = "".join(f" {call.name}({_cut(call.arguments)})" for call in answer.calls)
    thoughts = f" after thoughts {_cut(answer.reasoning)}" if answer.reasoning else ""
    return f"{_cut(answer.content)}{calls}{thoughts}"


def _json(value: Any) -> str:
    return _cut(json.dumps(value, ensure_ascii=False), 200)


def _cut(text: str, limit: int = 80) -> str:
    shown = repr(text) if not text.startswith(("{", "[")) else text
    return shown if len(shown) <= limit else f"{shown[: limit - 1]}…"
