"""From a check that did not pass to its request: nothing is lost or interpreted, and it can be asked again."""

from __future__ import annotations

import http.server
import json
import re
import shlex
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import pages, synthetic
from support.snapshots import expect_snapshot

from conformance import FIXTURES, PACKAGE
from conformance.commands.main import main
from conformance.evidence.folder import Evidence
from conformance.judging.verdict import Diagnosis, Finding, Record, Verdict
from conformance.profile.profile import load_profile
from conformance.reports.check_report import as_json, as_text
from conformance.reports.drill_down import DrillDown, _pretty, _Rows, _Server, drill_down, side_by_side
from conformance.reports.html import as_html
from conformance.reports.source import Source

SCHEMA = jsonschema.Draft202012Validator(json.loads((PACKAGE / "reports/check.schema.json").read_text("utf-8")))


def failed(sentence: str, *files: str, **changes: Any) -> Record:
    source = ", ".join(f"observations/{file}.json" for file in files)
    finding = Finding(Verdict.FAIL, sentence, "7 of 8", "all", 8, None, source)
    return replace(Record("TOOL-03", "A claim.", "smoke", Verdict.FAIL, sentence, 1.0, (finding,)), **changes)


def wrong_call(documents: synthetic.Documents) -> None:
    """One call with MTP has the wrong days, streamed."""
    for row in documents["chat-call"]["answers"]:
        if (row["case"], row["server"], row["interval"]) == ("call-01", "mtp", 1):
            for message in row["messages"]:
                for call in message["calls"]:
                    call["arguments"] = call["arguments"].replace('"days": 1', '"days": 2')


@pytest.fixture
def evidence(tmp_path: Path) -> Path:
    documents = pages.diverged()
    wrong_call(documents)
    wanted = ("chat-call", "load", "near_ties", "environment")
    return synthetic.record(tmp_path / "run", {name: documents[name] for name in wanted})


def drilled(evidence: Path, record: Record) -> DrillDown:
    profile = load_profile("cpu", "micro-26b-a4b-nvfp4", "qualify")
    return drill_down(record, Source(Evidence(evidence, recording=False), profile))


def body_of(curl: str) -> Any:
    words = shlex.split(curl, comments=True)
    return json.loads(words[words.index("-d") + 1])


def test_a_chat_is_shown_beside_the_one_without_mtp(evidence: Path) -> None:
    found = drilled(evidence, failed("call-01 (streamed, with MTP): call 1 is wrong", "chat-call"))
    (case,) = found.cases
    assert case.id == "call-01"
    body = body_of(case.curl)
    row = synthetic.healthy()["chat-call"]["cases"]["call-01"]
    assert body["messages"] == row["messages"]
    assert body["tools"] == row["tools"]
    assert (body["temperature"], body["max_tokens"]) == (0, 64)
    assert [side.name for side in case.sides] == ["without MTP", "with MTP"]
    assert found.files == ("observations/chat-call.json",)
    assert "get_weather" in case.expected


@pytest.mark.usefixtures("no_waivers")
def test_the_first_difference_is_marked(evidence: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(evidence), "tool-03"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("FAIL TOOL-03")
    assert "curl -s http://127.0.0.1:8000/v1/chat/completions" in out
    assert ">>>1,<<<" in out
    assert ">>>2,<<<" in out


def test_show_is_as_kept(evidence: Path) -> None:
    record = failed("call-01 (streamed, with MTP): call 1 is wrong", "chat-call")
    for width in (80, 160):
        expect_snapshot(f"show-{width}", as_text(record, drilled(evidence, record), "evidence/x", width=width))


def test_show_has_json(evidence: Path) -> None:
    record = failed("call-01 (streamed, with MTP): call 1 is wrong", "chat-call")
    document = json.loads(as_json(record, drilled(evidence, record), str(evidence)))
    SCHEMA.validate(document)
    assert document["record"]["verdict"] == "FAIL"
    assert document["drill_down"]["cases"][0]["id"] == "call-01"


@pytest.mark.parametrize(("observation", "file"), [("tools", "tools.jsonl"), ("task_score", "questions.jsonl")])
def test_a_request_comes_from_the_file_that_was_asked(tmp_path: Path, observation: str, file: str) -> None:
    rows = {row["id"]: row for row in map(json.loads, (FIXTURES / "prompts" / file).read_text().splitlines())}
    document = synthetic.healthy()[observation]
    document[next(key for key, value in document.items() if isinstance(value, list))][0]["id"] = "tool_call-00"
    evidence = synthetic.record(tmp_path / "run", {observation: document})
    (case,) = drilled(evidence, failed("tool_call-00 is wrong", observation)).cases
    assert body_of(case.curl)["messages"] == rows["tool_call-00"]["messages"]


def test_a_request_that_two_files_may_hold_is_not_guessed() -> None:
    rows = _Rows({"a": {"one.jsonl": {"text": "1"}, "two.jsonl": {"text": "2"}}, "b": {"one.jsonl": {"text": "1"}}})
    server = _Server("http://127.0.0.1:1", "m")
    assert rows.curl("a", server) == rows.curl("c", server) == ""
    assert "1" in rows.curl("b", server)
    assert '"prompt": "2"' in replace(rows, file="two.jsonl").curl("a", server)


def test_a_check_that_is_not_there_is_bad_input(evidence: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(evidence), "TOOL-99"]) == 2
    assert "is no check" in capsys.readouterr().err


def test_a_timed_prompt_is_shown_where_it_diverges(evidence: Path) -> None:
    found = drilled(evidence, failed("code-00 differs at token 10 (plain 1: token 7)", "near_ties"))
    (case,) = found.cases
    assert case.sides[0].shared == case.sides[1].shared == "def f():\n    return "
    assert {side.differing for side in case.sides} == {"1", pages.ATTACK.split()[0]}
    assert body_of(case.curl)["messages"][0]["content"].startswith("Write open_lamp")


def test_a_cut_answer_is_asked_again_as_it_was_cut(tmp_path: Path) -> None:
    document = synthetic.healthy()["cut_answers"]
    place = next(i for i, row in enumerate(document["arms"]["mtp"]) if row["question"] == "call" and row["stream"])
    row = document["arms"]["mtp"][place]
    row["reply"]["choices"][0]["calls"] = [{"name": "count", "arguments": "{}"}]
    evidence = synthetic.record(tmp_path / "run", {"cut_answers": document})
    name = f"the call cut after {row['max_tokens']} tokens, streamed,"
    (case,) = drilled(
        evidence, failed(f"{name} has the call count({{}}) where count_letter is called", "cut_answers")
    ).cases
    assert case.id == name.rstrip(",")
    body = body_of(case.curl)
    assert (body["max_tokens"], body["stream"], body["tools"][0]["function"]["name"]) == (
        row["max_tokens"],
        True,
        "count_letter",
    )
    assert "[call] count({})" in case.sides[1].text
    assert "count({})" not in case.sides[0].text
    assert case.expected.startswith("a part of ")


def test_numbers_of_a_list_stand_in_one_line() -> None:
    assert (
        _pretty({"ids": [1, -2.5e-3], "all": [{"a": 1}]})
        == '{\n "ids": [ 1, -0.0025 ],\n "all": [\n  {\n   "a": 1\n  }\n ]\n}'
    )


@pytest.mark.parametrize(
    ("id", "method", "body"),
    [("malformed-json", [], '{"model": "somewhere", "messages": ['), ("wrong-method", ["-X", "GET"], None)],
)
def test_a_wrong_request_is_repeated_as_it_was(tmp_path: Path, id: str, method: list[str], body: str | None) -> None:
    documents = {"bad_requests": synthetic.synthetic_chat.misuse()}
    documents["bad_requests"]["requests"][0]["id"] = id
    evidence = synthetic.record(tmp_path / "run", documents)
    command = [*synthetic.START["command"], "--model", "somewhere", "--port", "4711"]  # type: ignore[misc]
    (evidence / "servers/mtp.json").write_text(json.dumps(synthetic.START | {"command": command}))
    (case,) = drilled(evidence, failed(f"{id} got HTTP 500", "bad_requests")).cases
    words = shlex.split(case.curl)
    assert words[:2] == ["curl", "-s"]
    assert words[2 : 2 + len(method)] == method
    assert words[2 + len(method)].startswith("http://127.0.0.1:4711/")
    assert ("-d" in words) == (body is not None)
    assert body is None or words[-1] == body


def test_only_cases_that_the_sentence_names_are_shown(evidence: Path) -> None:
    assert drilled(evidence, failed("nothing is named, not even call-0", "chat-call")).cases == ()
    found = drilled(evidence, failed("call-00, call-01, call-02, call-03, call-04 are wrong", "chat-call"))
    assert [case.id for case in found.cases] == ["call-00", "call-01", "call-02"]
    assert found.left == 2


def test_lines_of_logs_are_those_of_the_known_failure(evidence: Path) -> None:
    log = [f"INFO line {number}" for number in range(50)]
    log[20] = "ERROR something else"
    log[40] = "Failed to advance FSM for request r1"
    (evidence / "logs/mtp.log").write_text("\n".join(log))
    known = (Diagnosis("GRAMMAR-FSM", "vllm-project/vllm#44006", "Follow the issue."),)
    (excerpt,) = drilled(evidence, failed("x", "chat-call", diagnoses=known)).excerpts
    assert excerpt.file == "logs/mtp.log"
    assert excerpt.lines.splitlines() == log[38:43]
    (excerpt,) = drilled(evidence, failed("x", "chat-call")).excerpts
    assert excerpt.lines.splitlines() == log[18:23]
    assert drilled(evidence, failed("x", verdict=Verdict.INCONCLUSIVE)).excerpts == ()


def test_damaged_evidence_gives_less_and_no_error(evidence: Path) -> None:
    (evidence / "observations/chat-call.json").write_text("{")
    assert drilled(evidence, failed("call-01 is wrong", "chat-call", "no-such")).cases == ()


@given(st.text(max_size=80), st.text(max_size=80))
def test_the_sides_are_the_answers(one: str, other: str) -> None:
    sides = side_by_side([("a", one), ("b", other)])
    for side, text in zip(sides, (one, other), strict=True):
        assert side.text in (text, f"{text}(its end)")
    assert sides[0].shared == sides[1].shared
    assert bool(sides[0].differing) == (one != other)


@pytest.fixture
def page(evidence: Path) -> str:
    first = failed("call-01 (streamed, with MTP): call 1 is wrong; code-00 differs", "chat-call", "near_ties")
    return as_html(pages.report_of(evidence, first, pages.PASSED))


def test_the_page_opens_the_request_and_both_answers(page: str) -> None:
    section = page.partition('<details id="TOOL-03" open>')[2].partition("</details>")[0]
    assert section.count('<section class="case"') == 2
    assert section.count("<mark>") == 4
    assert section.count('class="unseen">first difference: ') == 4
    assert "<b>without MTP</b>" in section
    assert "curl -s " in section
    assert "<script" not in page


def test_a_page_stays_below_two_megabytes(tmp_path: Path) -> None:
    documents = {"chat-call": synthetic.healthy()["chat-call"]}
    for row in documents["chat-call"]["answers"]:
        row["messages"][0]["content"] = "\U0001f600<" * 20_000
    evidence = synthetic.record(tmp_path / "run", documents)
    (evidence / "logs/mtp.log").write_text("ERROR <&> \n" * 10_000)
    sentence = "call-00, call-01, call-02 are wrong"
    records = [failed(sentence, "chat-call", id=f"TOOL-{number:02}") for number in range(1, 31)]
    text = as_html(pages.report_of(evidence, *records))
    assert len(text.encode()) <= 2_000_000
    assert '<section class="case"' in text


class Asked(http.server.BaseHTTPRequestHandler):
    """Keeps the bodies of requests."""

    bodies: list[Any] = []  # noqa: RUF012

    def do_POST(self) -> None:
        self.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Asked)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed here")
def test_a_shell_asks_the_same_request_again(evidence: Path, port: int) -> None:
    (case,) = drilled(evidence, failed("call-01 is wrong", "chat-call")).cases
    line = re.sub(r"http://127\.0\.0\.1:\d+", f"http://127.0.0.1:{port}", case.curl)
    Asked.bodies.clear()
    subprocess.run(["sh", "-c", line], check=True, timeout=30)
    assert Asked.bodies == [body_of(case.curl)]
