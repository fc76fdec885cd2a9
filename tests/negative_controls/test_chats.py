"""Chats: every group of cases counts in its check, the control fails nothing, and a wrong answer counts once."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support import synthetic

from conformance import FIXTURES
from conformance.judging.catalogue import catalogue
from conformance.judging.verdict import Finding, Verdict
from conformance.observers.chat import BATCHES
from conformance.observers.other_apis import DIALECTS
from conformance.workload.chat_cases import CHAT, Case
from conformance.workload.prompts import load_rows
from negative_controls.damages.chat import answer, message
from negative_controls.judge_documents import outcome

Documents = synthetic.Documents
RELIABILITY = "TOOL-11"  # asks for groups that other checks ask for too


GROUPS = [(check.id, group) for check in catalogue() for group in check.chats]


def test_every_group_of_cases_is_of_one_check() -> None:
    cases = {case.group for case in load_rows(FIXTURES / "prompts" / CHAT, Case)}
    asked = [group for id, group in GROUPS if id != RELIABILITY]
    assert sorted(asked) == sorted(cases | BATCHES.keys() | DIALECTS.keys())


@pytest.mark.parametrize(("id", "group"), GROUPS)
def test_one_wrong_answer_of_any_group_fails_the_check(id: str, group: str) -> None:
    documents = synthetic.healthy()
    answer(documents, group)["finish_reason"] = "length"
    found = outcome(id, documents)
    assert found.verdict is Verdict.FAIL
    assert f"{group}-00 (not streamed, with MTP): finish_reason is length" in found.sentence


@pytest.mark.parametrize(("id", "group"), GROUPS)
def test_a_group_that_was_not_asked_with_mtp_is_an_error(id: str, group: str) -> None:
    documents = synthetic.healthy()
    rows = documents[f"chat-{group}"]["answers"]
    rows[:] = [row for row in rows if row["server"] == "plain"]
    found = outcome(id, documents)
    assert found.verdict is Verdict.ERROR
    assert found.sentence == f"no case of the group {group} was asked with MTP"


def rows_of(documents: Documents, group: str, server: str) -> list[dict[str, Any]]:
    """One server's answers to the first case of a group, in one piece and streamed."""
    rows = documents[f"chat-{group}"]["answers"]
    return [row for row in rows if row["server"] == server and row["case"] == f"{group}-00"]


def asked_of(id: str, documents: Documents, verdict: Verdict) -> Finding:
    """The one finding of a check, which must come to this verdict."""
    found = outcome(id, documents)
    assert found.verdict is verdict, found
    (finding,) = found.findings
    return finding


def think(row: dict[str, Any], thought: str) -> None:
    """Set the thought in the first message of an answer."""
    row["messages"][0]["reasoning"] = thought


@pytest.mark.parametrize("id", ["TOOL-03", RELIABILITY])
def test_a_fault_of_the_server_without_mtp_alone_is_a_note(id: str) -> None:
    documents = synthetic.healthy()
    for row in rows_of(documents, "call", "plain"):
        row["finish_reason"] = "length"
    said = "call-00 (not streamed, without MTP): finish_reason is length where tool_calls is expected"
    assert asked_of(id, documents, Verdict.PASS).note == f"wrong without MTP only: {said}; and 1 more"


def test_a_fault_of_both_servers_fails_and_names_the_control() -> None:
    documents = synthetic.healthy()
    for row in (answer(documents, "call"), *rows_of(documents, "call", "plain")):
        row["finish_reason"] = "length"
    finding = asked_of("TOOL-03", documents, Verdict.FAIL)
    assert finding.sentence.endswith("is expected (the same without MTP)")
    assert finding.note == ""
    answer(documents, "call")["finish_reason"] = "stop"
    assert asked_of("TOOL-03", documents, Verdict.FAIL).sentence.endswith("is expected (wrong without MTP too)")


def test_right_answers_do_not_object_to_a_wrong_one() -> None:
    documents = synthetic.healthy()
    message(documents, "call")["calls"][0]["arguments"] = "{}"
    assert asked_of("TOOL-03", documents, Verdict.FAIL).value == "15 of 16"


def test_answers_with_mtp_that_agree_on_what_the_control_does_not_say_fail() -> None:
    documents = synthetic.healthy()
    for row in rows_of(documents, "thinking", "mtp"):
        think(row, "I")
    assert asked_of("REASON-01", documents, Verdict.FAIL).value == "14 of 16"


def test_a_control_that_contradicts_itself_is_a_note() -> None:
    documents = synthetic.healthy()
    think(rows_of(documents, "thinking", "plain")[0], "I")
    finding = asked_of("REASON-01", documents, Verdict.PASS)
    assert finding.note.startswith(
        "wrong without MTP only: thinking-00 (not streamed, without MTP): says 'Tale 0.' after thoughts"
    )


def test_a_contradiction_of_both_servers_is_the_parsers() -> None:
    documents = synthetic.healthy()
    for server in ("mtp", "plain"):
        think(rows_of(documents, "thinking", server)[1], "I")
    finding = asked_of("REASON-01", documents, Verdict.FAIL)
    assert finding.value == "15 of 16"
    assert finding.sentence.endswith("(the same without MTP)")


def test_one_number_in_two_spellings_is_no_contradiction() -> None:
    documents = synthetic.healthy()
    call = message(documents, "call")["calls"][0]
    call["arguments"] = call["arguments"].replace('"days": 0', '"days": 0.0')
    assert asked_of("TOOL-03", documents, Verdict.PASS).note == ""


def test_one_answer_with_many_problems_is_one_answer() -> None:
    documents = synthetic.healthy()
    spoiled = answer(documents, "call")
    spoiled["finish_reason"] = "length"
    spoiled["messages"][0].update(content="<|tool_call>", reasoning="I think.")
    finding = asked_of("TOOL-03", documents, Verdict.FAIL)
    assert finding.sentence.count(" and ") == 3
    assert finding.value == "15 of 16"
    assert asked_of(RELIABILITY, documents, Verdict.FAIL).value == "1 lost"


def test_one_departure_with_many_remains_is_one_departure() -> None:
    documents = synthetic.healthy()
    documents["bad_requests"]["departures"][0].update(delivered=0, running=1, kv_usage=0.25)
    finding = asked_of("API-05", documents, Verdict.FAIL)
    assert finding.sentence.count(" and ") == 2
    assert finding.value == "1 of 2"


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e999", 400 * "9"])
def test_a_number_that_no_double_holds_is_a_wrong_number(number: str) -> None:
    documents = synthetic.healthy()
    call = message(documents, "call")["calls"][0]
    call["arguments"] = call["arguments"].replace('"days": 0', f'"days": {number}')
    shown = json.dumps(json.loads(number))[:50]
    assert f'"days": {shown}' in asked_of("TOOL-03", documents, Verdict.FAIL).sentence
    message(documents, "strict")["content"] = f'{{"days": {number}}}'
    assert f'content is {{"days": {shown}' in asked_of("GRAMMAR-01", documents, Verdict.FAIL).sentence
    documents["tools"]["prompts"][0]["whole"]["calls"][0]["arguments"] = f'{{"days": {number}}}'
    assert f't00 is get_weather({{"days": {shown}' in asked_of("TOOL-01", documents, Verdict.FAIL).sentence
