"""What the world sends to a parser: drawn input is valid, a right parser passes, each way to be wrong is named."""

from __future__ import annotations

import functools
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st
from support.reference_parser import ReferenceParser

from conformance.evidence.folder import SCHEMAS
from conformance.formats.gemma4_calls import Call
from conformance.formats.json_schema import first_violation, violations
from conformance.inside_vllm import parser_trials
from conformance.inside_vllm.answer_trials import Answers, ends_of
from conformance.inside_vllm.parser_findings import (
    CHANGED,
    HARMS,
    LEAKED,
    LOST,
    REFUSED,
    Wrong,
    differences,
    wrong_answer,
    wrong_cut,
    wrong_native,
)
from conformance.inside_vllm.parser_input import near_native, odd_names, tool_schemas
from conformance.inside_vllm.parsing import Asked, Parsed
from conformance.inside_vllm.schema_routes import route
from conformance.observers import parsers
from conformance.profile.profile import load_profile
from conformance.views import parsers as views

FEW = hypothesis.settings(max_examples=60, derandomize=True, database=None, deadline=None)
CALLED = Call("pay", {"amount": 3, "to": "Ada"})
NOTHING = {"reasoning": "", "content": "", "calls": []}


@functools.cache
def question() -> dict[str, Any]:
    built = parsers.build_request(load_profile("cpu", "micro-26b-a4b-nvfp4", "static"))
    return built | {"suite": built["suite"][::25], "streams": built["streams"][::6]}


@functools.cache
def reference() -> ReferenceParser:
    return ReferenceParser(Path(question()["tokenizer"]))


def kinds_of(parser: Any, examples: int = 30, names: Sequence[str] = ()) -> dict[str, set[str]]:
    trials = parser_trials.Trials(parser, question()["template"], examples)
    found = Answers(parser, trials.native).run(question(), examples, names)
    assert all(each["examples"] for each in found.values())
    return {name: {row["kind"] for row in each["kinds"]} for name, each in found.items()}


# --- a right parser, and wrong ones -----------------------------------------------------------------------------


def test_nobody_is_accused_wrongly() -> None:
    assert kinds_of(reference()) == {name: set() for name in Answers(reference(), str).judges}


def test_the_right_parser_has_every_other_property_too() -> None:
    trials = parser_trials.Trials(reference(), question()["template"], 40)  # type: ignore[arg-type]
    drawn = (parser_trials.scalars(), parser_trials.nested(), parser_trials.unions(), parser_trials.untyped())
    results = [trials.round_trip(values, []) for values in drawn]
    results += [trials.published(question()["instances"]), trials.any_text([])]
    assert [each["counterexample"] for each in results] == [None] * 6


def test_the_whole_command_is_green_and_tells_its_time(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(parser_trials, "Gemma4", lambda _: reference())
    monkeypatch.setattr(parser_trials.adapters, "vllm_version", lambda: "0.32.0")
    few = question() | {"examples": 2, "suite": question()["suite"][:3], "regressions": []}
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(few)))
    parser_trials.main()
    found = json.loads(capsys.readouterr().out)
    assert first_violation(SCHEMAS / "parsers.schema.json", found) is None
    assert list(found["chunking"]) == [stream["id"] for stream in few["streams"]]
    assert not any(each["counterexample"] for each in (*found["chunking"].values(), *found["round_trip"].values()))
    assert not any(each["kinds"] for each in found["answers"].values())
    assert found["cpu_seconds"] > 0.1, "the CPU seconds of the forked processes are missing"


class Wrongly(ReferenceParser):
    """The right parser, whose delivery one function spoils; it may do so in streams alone."""

    def __init__(self, spoil: Callable[[Parsed, str], None], streams_only: bool = False) -> None:
        self._tokenizer, self._spoil, self._streams_only = reference()._tokenizer, spoil, streams_only

    def whole(self, asked: Asked, ids: Sequence[int], stop: int | None = None) -> Parsed:
        parsed = super().whole(asked, ids, stop)
        if not self._streams_only:
            self._spoil(parsed, self.decode(ids))
        return parsed

    def streamed(self, asked: Asked, ids: Sequence[int], ends: Sequence[int], stop: int | None = None) -> Parsed:
        parsed = super().streamed(asked, ids, ends, stop)
        self._spoil(parsed, self.decode(ids))
        return parsed


def numbers_as_text(parsed: Parsed, _text: str) -> None:
    for call in parsed.calls:
        values = json.loads(call["arguments"])
        call["arguments"] = json.dumps(
            {key: str(each) if isinstance(each, int) else each for key, each in values.items()}
        )


def refusals_hidden(parsed: Parsed, text: str) -> None:
    if "<|tool_call>" in text and not parsed.calls:
        parsed.content = ""


def calls_hidden(parsed: Parsed, _text: str) -> None:
    parsed.calls.clear()


def marks_in_keys(parsed: Parsed, _text: str) -> None:
    for call in parsed.calls:
        call["arguments"] = call["arguments"].replace('": ', '<tool_call|>": ', 1)


def cut_calls_finished(parsed: Parsed, text: str) -> None:
    if text.count("<|tool_call>") > text.count("<tool_call|>"):
        parsed.add_call(len(parsed.calls), text.rpartition("call:")[2].partition("{")[0] or "x", "{}")


def text_as_thought(parsed: Parsed, _text: str) -> None:
    parsed.reasoning, parsed.content = parsed.reasoning + parsed.content, ""


def doubles(parsed: Parsed, _text: str) -> None:
    for call in parsed.calls:
        call["arguments"] = json.dumps(json.loads(call["arguments"], parse_int=lambda digits: float(digits)))


def raises(_parsed: Parsed, _text: str) -> None:
    raise KeyError("call")


@pytest.mark.parametrize(
    ("spoil", "property", "kind"),
    [
        (numbers_as_text, "schemas", "value changed: declared types"),
        (numbers_as_text, "suite", "value changed: "),
        (calls_hidden, "schemas", "lost in silence: whole call"),
        (marks_in_keys, "names", "leaked mark: key"),
        (doubles, "names", "value changed: long integer"),
        (marks_in_keys, "near_native", "leaked mark: "),
        (refusals_hidden, "near_native", "lost in silence: JSON quotes"),
        (cut_calls_finished, "cut", "value changed: cut arguments"),
        (cut_calls_finished, "cut", "value changed: cut name"),
        (text_as_thought, "thinking", "value changed: no channel"),
        (calls_hidden, "thinking", "lost in silence: no channel, a call"),
        (raises, "thinking", "value changed: raises KeyError"),
    ],
)
def test_a_wrong_parser_is_found_and_its_kind_is_named(
    spoil: Callable[[Parsed, str], None], property: str, kind: str
) -> None:
    found = kinds_of(Wrongly(spoil), 80 if property in ("names", "near_native") else 20, [property])[property]
    assert [each for each in found if each.startswith(kind)], found
    assert all(each.startswith(HARMS) for each in found)


def test_a_stream_that_differs_is_found_although_both_are_allowed() -> None:
    found = kinds_of(Wrongly(text_as_thought, streams_only=True), 20, ["cut"])
    assert "value changed: cut answer, deliveries differ" in found["cut"]


# --- drawn input ------------------------------------------------------------------------------------------------


@FEW
@hypothesis.given(tool_schemas.parameters(tool_schemas.shapes()))
def test_drawn_arguments_are_valid(drawn: tool_schemas.Drawn) -> None:
    schema, arguments = drawn
    assert list(violations(schema, arguments)) == []


@FEW
@hypothesis.given(odd_names.calls())
def test_odd_arguments_are_valid(given: dict[str, Any]) -> None:
    assert list(violations(given["schema"], given["arguments"])) == []
    assert 1 <= len(given["name"]) <= 64


def test_every_row_of_the_suite_is_valid() -> None:
    built = parsers.build_request(load_profile("cpu", "micro-26b-a4b-nvfp4", "static"))
    assert [row["id"] for row in built["suite"] if list(violations(row["parameters"], row["arguments"]))] == []
    assert len({row["id"] for row in built["suite"]}) == len(built["suite"])


@pytest.mark.parametrize("form", near_native.FORMS)
def test_every_form_writes_its_calls(form: str) -> None:
    answer = near_native.FORMS[form]([CALLED, Call("go", {"on": True})])
    assert answer.calls
    assert wrong_answer(answer, {**NOTHING, "content": answer.text}) == [Wrong(REFUSED)] * len(answer.calls)
    delivered = [vars(meanings[0]) for meanings in answer.calls]
    texts = " ".join(answer.texts + answer.thoughts)
    assert wrong_answer(answer, {**NOTHING, "content": texts, "calls": delivered}) == []


@hypothesis.given(st.lists(st.integers(1, 12), min_size=1), st.integers(1, 50))
def test_deltas_end_with_the_answer(sizes: list[int], count: int) -> None:
    ends = ends_of(sizes, count)
    assert ends[-1] == count
    assert ends == sorted(set(ends))


# --- harms and causes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "harms"),
    [
        ({"amount": 3.0, "to": "Ada"}, []),
        ({"amount": "3", "to": "Ada"}, [CHANGED]),
        ({"amount": True, "to": "Ada"}, [CHANGED]),
        ({"to": "Ada"}, [LOST]),
        ({"amount": 3, "to": 'Ada<|"|>'}, [LEAKED]),
        ({"amount": 3, 'to<|"|>': "Ada"}, [LOST, LEAKED]),
    ],
)
def test_harms_of_arguments(found: dict[str, Any], harms: list[str]) -> None:
    assert [each.harm for each in differences(CALLED.arguments, found)] == harms


@pytest.mark.parametrize(
    ("delivered", "harm"),
    [
        ({}, LOST),
        ({"content": "call:pay{amount:3,to:Ada}"}, REFUSED),
        ({"calls": [{"name": "pa", "arguments": CALLED.arguments}]}, CHANGED),
        ({"calls": [{"name": "pay", "arguments": "{"}]}, CHANGED),
        ({"calls": [vars(CALLED)], "content": "<|tool_call>"}, LEAKED),
    ],
)
def test_harms_of_a_native_call(delivered: dict[str, Any], harm: str) -> None:
    assert [each.harm for each in wrong_native(CALLED, NOTHING | delivered)] == [harm]


@pytest.mark.parametrize(
    ("form", "calls", "harm"),
    [
        ("parentheses and equals signs", [{"name": "pay", "arguments": {}}], LOST),
        ("JSON quotes", [{"name": "pay", "arguments": {'"amount"': "3", '"to"': '"Ada"'}}], CHANGED),
        ("no opening mark", [{"name": "pay", "arguments": {"amount": 3, "to": 'Ada<|"|>'}}], LEAKED),
        ("no call:", [{"name": "y", "arguments": CALLED.arguments}], CHANGED),
        ("nothing between the call marks", [{"name": "x", "arguments": {}}, vars(CALLED)], CHANGED),
    ],
)
def test_harms_of_a_near_native_call(form: str, calls: list[Any], harm: str) -> None:
    found = wrong_answer(near_native.FORMS[form]([CALLED]), {**NOTHING, "calls": calls})
    assert [each.harm for each in found] == [harm]


@pytest.mark.parametrize(
    ("tail", "extra", "causes"),
    [
        ("call:pay{amount:3", {"name": "pay", "arguments": '{"amount": 3'}, []),
        ("call:pay{amount:3", {"name": "pay", "arguments": {"amount": 3}}, ["cut arguments"]),
        ("call:pa", {"name": "pa", "arguments": {}}, ["cut name"]),
        ('call:pay{amount:3,to:<|"|>Ada<|"|>}', vars(CALLED), []),
    ],
)
def test_harms_of_a_cut_call(tail: str, extra: dict[str, Any], causes: list[str]) -> None:
    assert [cause for cause, _ in wrong_cut([], CALLED, tail, {**NOTHING, "calls": [extra]})] == causes
    assert wrong_cut([CALLED], None, "", NOTHING) == [("complete call", Wrong(LOST))]


NODE = {"type": "object", "properties": {"next": {"anyOf": [{"$ref": "#/$defs/N"}, {"type": "null"}]}, "x": {}}}


@pytest.mark.parametrize(
    ("schema", "path", "keywords"),
    [
        ({"type": "integer"}, ["a"], ()),
        ({"type": "array", "items": {"type": "integer"}}, ["a", 0], ()),
        ({"type": ["integer", "null"]}, ["a"], ("type list",)),
        ({"$ref": "#/$defs/N"}, ["a", "x"], ("below $ref", "no type")),
        ({"$ref": "#/$defs/N"}, ["a", "next", "next", "x"], ("below $ref", "below anyOf", "no type")),
        ({"additionalProperties": {"type": "integer"}}, ["a", "k"], ("additionalProperties",)),
        ({"patternProperties": {"^k": {"const": 3}}}, ["a", "k"], ("patternProperties", "const")),
        ({"prefixItems": [{"enum": [3, "3"]}]}, ["a", 0], ("prefixItems", "enum")),
        ({"allOf": [{"type": "integer"}]}, ["a"], ("allOf",)),
        ({"if": True, "then": {"properties": {"k": {"type": "integer"}}}}, ["a", "k"], ("below then",)),
        (True, ["a"], ("no type",)),
        ({"type": "object"}, ["a", "k"], ("no schema",)),
    ],
)
def test_the_way_to_a_value(schema: Any, path: list[str | int], keywords: tuple[str, ...]) -> None:
    root = {"type": "object", "properties": {"a": schema}, "$defs": {"N": NODE}}
    assert route(root, path) == keywords


def test_the_view_knows_every_harm() -> None:
    assert views.HARMS == HARMS


class WrongInThreeDeltas(ReferenceParser):
    """It loses the text of an answer in three deltas, as often as it is told."""

    def __init__(self, tokenizer: Path, times: int) -> None:
        super().__init__(tokenizer)
        self._times = times

    def streamed(self, asked: Asked, ids: Sequence[int], ends: Sequence[int], _stop: int | None = None) -> Parsed:
        if len(ends) != 3 or not self._times:
            return self.whole(asked, ids)
        self._times -= 1
        return Parsed()


@pytest.mark.parametrize("times", [1, 10**6])
def test_cuts_that_only_hypothesis_draws_are_tried_for_every_answer_of_a_length(times: int) -> None:
    tokenizer, template = Path(question()["tokenizer"]), question()["template"]
    trials = parser_trials.Trials(WrongInThreeDeltas(tokenizer, times), template, 50)
    right = parser_trials.Trials(reference(), template, 50)
    streams = [parser_trials.Stream(name, "One two three four five.", Asked(), None) for name in ("one", "two")]
    found, none = trials.chunking_of(streams), right.chunking_of(streams)
    assert len(found["one"]["counterexample"]["deltas"]) == 3
    assert bool(found["two"]["counterexample"]) == (times > 1)
    assert all(each["counterexample"] is None and each["examples"] > 50 for each in none.values())
    assert [part for part in trials.parts_of(streams) if part] == [streams]  # cuts are drawn once for both
