"""Many drawn answers in several processes: counted once, continued, and written whatever happens."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path
from typing import Any

import pytest
from support.reference_parser import ReferenceParser

from conformance.errors import UsageError
from conformance.inside_vllm.answer_trials import Judged
from conformance.observers.parsers import build_request
from conformance.profile.profile import load_profile
from drawn_answers import __main__ as command
from drawn_answers.batch import PROPERTIES, Batch, Drawer, TooLong, time_limit
from drawn_answers.keep import keep
from drawn_answers.shrink import shrink
from drawn_answers.tally import RESULT, Tally, read_found, summarize

ABOUT = {"vllm": "0", "seed": 1}


@pytest.fixture(scope="module")
def drawer() -> Drawer:
    question = build_request(load_profile("cpu", "micro-26b-a4b-nvfp4", "static"))
    return Drawer(ReferenceParser(Path(question["tokenizer"])), question["template"])


@pytest.mark.parametrize("property", PROPERTIES)
def test_a_batch_draws_its_own_answers(drawer: Drawer, property: str) -> None:
    one, again, other = (drawer.run(property, number, 1, size=12) for number in (0, 0, 1))
    assert one == again
    assert one.answers == 12
    assert not one.failures
    assert {harm for harm, _ in one.found} <= {"refused visibly"}
    assert len(one.digests & other.digests) <= 2  # the simplest input of all


def test_an_answer_that_cannot_be_judged_is_kept(drawer: Drawer, monkeypatch: pytest.MonkeyPatch) -> None:
    def raises(_given: Any) -> None:
        raise ZeroDivisionError("no judge")

    monkeypatch.setitem(drawer.answers.judges, "names", raises)
    batch = drawer.run("names", 0, 1, size=3)
    assert len(batch.failures) == 3
    assert "arguments" in batch.failures[0]["given"]
    assert "ZeroDivisionError: no judge" in batch.failures[0]["error"]


def test_an_answer_that_takes_too_long_ends() -> None:
    with pytest.raises(TooLong, match="not judged within 1 s"), time_limit(1):
        time.sleep(5)


def finding(number: int, text: str) -> Batch:
    example = {"text": text, "given": {}}
    return Batch(
        "cut", number, 3, 2, 1, {("value changed", ("cut name",)): {"answers": 2, "example": example}}, [], {number}
    )


def test_a_result_is_continued(tmp_path: Path) -> None:
    first = Tally(tmp_path, ABOUT)
    first.add(finding(0, "long"))
    first.add(finding(2, "longer"))
    first.write(4.0)
    second = Tally(tmp_path, ABOUT)
    assert second.properties["cut"].done == {0, 2}
    second.add(finding(1, "sho"))
    second.write(2.0)
    found = json.loads((tmp_path / RESULT).read_text())
    row = found["properties"]["cut"]
    assert (row["batches"], row["answers"], row["judged"], found["seconds"]) == ([[0, 2]], 9, 6, 6.0)
    assert row["found"] == [
        {"harm": "value changed", "causes": ["cut name"], "answers": 6, "example": {"text": "sho", "given": {}}}
    ]
    assert found["distinct"] == 3
    assert read_found(tmp_path) == [("cut", {})]
    assert summarize(tmp_path)["properties"]["cut"]["kinds"] == {"value changed: cut name": 6}
    with pytest.raises(UsageError, match="draw answers first"):
        read_found(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="name another folder"):
        Tally(tmp_path, ABOUT | {"seed": 2})


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command with a right parser in place of vLLM's, and small batches."""
    monkeypatch.setattr(command, "Gemma4", lambda tokenizer: ReferenceParser(tokenizer))
    monkeypatch.setattr(command, "vllm_version", lambda: "0")
    monkeypatch.setattr(Drawer.run, "__defaults__", (10,))


@pytest.mark.usefixtures("small")
def test_several_processes_draw_as_many_as_asked(tmp_path: Path) -> None:
    assert command.main([str(tmp_path), "--answers", "60", "--processes", "2"]) == 0
    once = json.loads((tmp_path / RESULT).read_text())
    assert command.main([str(tmp_path), "--answers", "120", "--processes", "2"]) == 0
    found = json.loads((tmp_path / RESULT).read_text())
    assert 60 <= once["judged"] < 120 <= found["judged"] == sum(each["judged"] for each in found["properties"].values())
    assert {each["harm"] for row in found["properties"].values() for each in row["found"]} <= {"refused visibly"}
    assert command.main([str(tmp_path), "--seed", "7"]) == 2


@pytest.mark.usefixtures("small")
def test_a_process_that_dies_costs_its_batch_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Drawer.run
    monkeypatch.setattr(
        Drawer, "run", lambda self, *given: os._exit(3) if given[:2] == ("names", 1) else run(self, *given)
    )
    assert command.main([str(tmp_path), "--answers", "200", "--processes", "2"]) == 1
    found = json.loads((tmp_path / RESULT).read_text())
    assert found["judged"] >= 200
    assert "a process died" in found["properties"]["names"]["failures"][0]["error"]


# --- the shortest input of a kind -------------------------------------------------------------------------------

LONG_ANSWERS: dict[str, Any] = {
    "schemas": {
        "schema": {
            "type": "object",
            "properties": {"speed": {"$ref": "#/$defs/Model7"}, "name": {"type": "string"}},
            "$defs": {"Model7": {"type": "object", "properties": {"of": {"type": "integer"}}}},
        },
        "arguments": {"speed": {"of": 512}, "name": "Ada"},
        "sizes": [3, 1, 4],
    },
    "near_native": {
        "form": "JSON quotes",
        "tools": [
            {"name": "search", "parameters": {"type": "object", "properties": {"query": {"type": "string"}}}},
            {"name": "terminal", "parameters": {"type": "object", "properties": {"on": {"type": "boolean"}}}},
        ],
        "calls": [
            {"name": "search", "arguments": {"query": "Paris, France"}},
            {"name": "terminal", "arguments": {"on": True}},
        ],
        "sizes": [2, 2],
    },
    "cut": {
        "text": "<|tool_call>call:search{limit:512,on:true}<tool_call|>",
        "prompt": "",
        "tools": [],
        "chat_template_kwargs": {},
        "tokens": 9,
        "sizes": [2, 2],
    },
}
SHORTEST = {
    "schemas": '"arguments": {"a": {"a": 0}}',
    "near_native": '"calls": [{"name": "a", "arguments": {"a": 0}}]',
    "cut": '"text": "<|tool_call>call:search{}<tool_call|>"',
}


@pytest.mark.parametrize("property", LONG_ANSWERS)
def test_an_input_is_made_as_short_as_its_finding_allows(drawer: Drawer, property: str) -> None:
    def shows(given: Any) -> bool:
        text = drawer.answers.judges[property](given).example["text"]
        return bool(
            re.search(
                r"[{,]\w+:\{\w+:\d|^<.tool_call>call:[^s]" if property == "schemas" else "<.tool_call>call:", text
            )
        )

    small = shrink(property, LONG_ANSWERS[property], shows)
    assert SHORTEST[property] in json.dumps(small)
    assert small["sizes"] == [1]
    assert shows(small)


def test_the_shortest_input_of_each_kind_is_kept(
    tmp_path: Path, drawer: Drawer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def judge(given: Any) -> Judged:
        number = given["arguments"]["a"]
        causes = {1: ("one",), 2: ("one", "two"), 3: ("three", "four")}.get(number, ())
        wrong = (("value changed", causes),) if causes else ()
        return Judged(wrong, {"text": str(number), "given": given, "expected": [], "way": "whole", "found": {}})

    monkeypatch.setitem(drawer.answers.judges, "schemas", judge)
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    found = [("schemas", {"schema": schema, "arguments": {"a": number}, "sizes": [9]}) for number in (1, 2, 3, 4)]
    path = tmp_path / "parsers.jsonl"
    idle = {
        "id": "old",
        "licence": "Apache-2.0",
        "property": "schemas",
        "example": judge(LONG_ANSWERS["schemas"] | {"arguments": {"a": 0}}).example,
    }
    path.write_text(json.dumps(idle) + "\n")
    told = keep(path, found, drawer.answers)
    assert told == ["schemas: value changed: one: 1", "schemas: value changed: three with four: 3"]
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(row["id"] == "old", row["example"]["text"]) for row in rows] == [(True, "0"), (False, "1"), (False, "3")]
    assert rows[1]["example"]["given"]["sizes"] == [1]
