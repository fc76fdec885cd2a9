"""The real parser as a function: healthy, and with its known defects put back."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from support import synthetic_chat
from support.paths import PYTHONPATH

from conformance import FIXTURES
from conformance.errors import ObservationError, Unsupported
from conformance.evidence.folder import Evidence
from conformance.inside_vllm.parser_trials import ends
from conformance.judging.verdict import Verdict
from conformance.judging.waivers import load_waivers
from conformance.observers import parsers
from conformance.profile.profile import load_profile
from conformance.serving.json_subprocess import Together
from conformance.serving.pool import ServerPool
from conformance.workload.parser_cases import keep_regressions, load_regressions
from negative_controls.judge_documents import judged
from negative_controls.museum.exhibits import Display, marked
from negative_controls.reported_answers import MODULE, REPORTS

PROFILE = load_profile("cpu", "micro-26b-a4b-nvfp4", "static")
CHECKS = tuple(f"PARSE-{number:02}" for number in range(1, 13))
KINDS = CHECKS[6:]  # the checks that tell kinds apart

BROKEN = "negative_controls.museum.parsers"

# defect -> the checks that fail, each with words of its sentence
EXPECTED = {
    "second_arguments_dropped": {"PARSE-04": "two-"},
    "raw_token_leaks": {"PARSE-01": '"content": "<|tool_call>"', "PARSE-07": "leaked mark: whole call"},
    "thought_in_content": {"PARSE-12": "value changed: a channel ("},
    "boundary_swallows_text": {"PARSE-04": "thought"},
    "integers_as_strings": {
        "PARSE-01": '"0"',
        "PARSE-07": "value changed: declared types",
        "PARSE-08": "value changed: declared types",
        "PARSE-09": "value changed: long integer (",
    },
    "raises_at_a_call": dict.fromkeys(
        ("PARSE-01", "PARSE-04", "PARSE-05", "PARSE-06"), "KeyError: 'call', for the text "
    )
    | dict.fromkeys(("PARSE-07", "PARSE-08", "PARSE-09", "PARSE-10", "PARSE-11"), "value changed: raises KeyError"),
}

ALLOWED = {"integers_as_strings": {"PARSE-08"}}  # a waiver allows what fails there, so a run is not red for it


def question(examples: int) -> dict[str, Any]:
    return parsers.build_request(PROFILE) | {"examples": examples}


FEW = question(20) | {
    "streams": question(20)["streams"][::2],
    "suite": question(20)["suite"][::50],
}
MANY = question(100)
INSTALLED = parsers.COMMAND[2]
QUICK = ("second_arguments_dropped",)  # it breaks one property, so little is shrunk


@pytest.fixture(scope="module")
def together(request: pytest.FixtureRequest) -> Iterator[Together]:
    """The trials that the selected tests ask for, after one import of vLLM."""
    tests = request.session.items
    asked = {item.callspec.params.get("defect") for item in tests if hasattr(item, "callspec")}
    installed = any(getattr(item, "function", None) is test_the_installed_parser for item in tests)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", PYTHONPATH)
        broken = {f"{BROKEN} {defect}": FEW for defect in EXPECTED if defect in asked}
        questions = broken | ({INSTALLED: MANY} if installed else {}) | {MODULE: FEW}
        running = Together(questions, seconds=1800)
    yield running
    running.stop()


def catches(defect: str, together: Together, display: Display) -> None:
    found = parsers.run_trials(FEW, (sys.executable, "-m", BROKEN, defect), together=together)
    sentences = {id: judged(id, {"parsers": found}, {}) for id in CHECKS}
    display(EXPECTED[defect].keys() - ALLOWED.get(defect, set()), sentences)
    for id, words in EXPECTED[defect].items():
        assert sentences[id].verdict is Verdict.FAIL, defect
        assert words in sentences[id].sentence


@pytest.mark.parametrize("defect", marked("parser", QUICK))
def test_a_broken_parser_is_caught(defect: str, together: Together, display: Display) -> None:
    catches(defect, together, display)


@pytest.mark.long
@pytest.mark.parametrize("defect", marked("parser", sorted(EXPECTED.keys() - set(QUICK))))
def test_another_broken_parser_is_caught(defect: str, together: Together, display: Display) -> None:
    catches(defect, together, display)


def of_drawn_answers(together: Together) -> dict[str, Any]:
    done = together.wait(MODULE)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


def test_resolved_references_turn_their_kinds_green(together: Together) -> None:
    kinds = set(of_drawn_answers(together)["mended"])
    assert not kinds & {"value changed: $ref", "value changed: below $ref"}
    assert kinds >= {"value changed: below anyOf", "value changed: additionalProperties", "value changed: const"}


@pytest.mark.long  # the main job at level smoke draws the same, and refuses other failures, kinds and waivers too
def test_the_installed_parser(together: Together) -> None:
    found = parsers.run_trials(MANY, together=together)
    outcomes = {id: judged(id, {"parsers": found}, {}) for id in CHECKS}
    failed = {id for id, outcome in outcomes.items() if outcome.verdict is Verdict.FAIL}
    assert failed <= {"PARSE-02", "PARSE-03", *KINDS}
    assert failed >= {"PARSE-03", *KINDS}  # vllm#47906, and what docs/upstream.md says
    waived = {id: set[str]() for id in KINDS}
    for waiver in load_waivers(FIXTURES / "waivers"):
        waived.get(waiver.check, set()).update(waiver.kinds)
    assert {id: {finding.kind for finding in outcomes[id].findings} for id in KINDS} == waived
    assert len(found["chunking"]) == len(question(1)["streams"])


@pytest.mark.parametrize("report", REPORTS)
def test_a_report_is_found_by_what_is_drawn(report: str, together: Together) -> None:
    assert of_drawn_answers(together)["reports"][report]


def test_a_trial_that_dies_says_why() -> None:
    with pytest.raises(ObservationError, match="could not be tried: ModuleNotFoundError: No module named 'no_such'"):
        parsers.run_trials({}, (sys.executable, "-c", "import no_such"))


def test_a_vllm_without_the_parser_is_unsupported() -> None:
    with pytest.raises(Unsupported, match="has no z"):
        parsers.run_trials({}, (sys.executable, "-c", 'print(\'{"unsupported": "vLLM 9 has no z"}\')'))


def test_a_checkpoint_without_template_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    profile = replace(PROFILE, pair=replace(PROFILE.pair, home=str(tmp_path), target="./target"))
    evidence = Evidence(tmp_path / "evidence", recording=True)
    with pytest.raises(ObservationError, match=r"chat_template.jinja: there is no such file"):
        parsers.observe(profile, ServerPool(profile, evidence, owns=False), evidence)


@given(ends(9))
def test_deltas_end_with_the_answer(drawn: list[int]) -> None:
    assert drawn[-1] == 9
    assert drawn == sorted(set(drawn))


def test_counterexamples_are_kept_once_and_come_first(tmp_path: Path) -> None:
    found = synthetic_chat.parsers()
    example = {"schema": {"type": "object"}, "text": "<|tool_call>call:set_values{a:null}<tool_call|>", "way": "whole"}
    found["round_trip"]["untyped"]["counterexample"] = example
    path = tmp_path / "regressions" / "parsers.jsonl"
    assert load_regressions(path) == []
    assert [keep_regressions(path, found) for _ in range(2)] == [1, 0]
    (row,) = load_regressions(path)
    assert (row["property"], row["example"]) == ("untyped", example)


def test_an_input_of_several_kinds_is_kept_once(tmp_path: Path) -> None:
    found = synthetic_chat.parsers()
    example = {"text": "<|tool_call>", "given": {"form": "no call:"}, "expected": [], "way": "whole", "found": {}}
    kinds = ["lost in silence: no call:", "value changed: no call:"]
    found["answers"]["near_native"]["kinds"] = [{"kind": each, "answers": 1, "example": example} for each in kinds]
    path = tmp_path / "parsers.jsonl"
    assert [keep_regressions(path, found) for _ in range(2)] == [1, 0]
    (row,) = load_regressions(path)
    assert (row["property"], row["example"]) == ("near_native", example)
