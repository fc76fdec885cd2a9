"""Renderers: nothing that a record says is lost on the way to the reader."""

from __future__ import annotations

import re
from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest
from support import pages
from support.snapshots import expect_snapshot

from conformance.judging.verdict import Diagnosis, Finding, Record, Run, Verdict, judge_run
from conformance.reports.charts import Row
from conformance.reports.junit import junit
from conformance.reports.progress import Progress
from conformance.reports.terminal import SHOWN, picture, render

POSITIONS = tuple(
    Finding(Verdict.PASS, "reaches", f"0.9{i}1", f"0.{i}", 120, (0.9, 0.95), "observations/acceptance.json", "a note")
    for i in range(1, 5)
)
FAILED = Record(
    id="DRAFT-01",
    claim="The draft's MLP is as wide as its checkpoint says.",
    level="smoke",
    verdict=Verdict.FAIL,
    sentence="down_proj is [1024, 4096] where [1024, 8192] is expected",
    seconds=31.25,
    findings=(Finding(Verdict.FAIL, "s", "7 of 8", "all", 8, None, "observations/draft_load.json"),),
    details="\n".join(f"log line {i} \x1b[31m" for i in range(40)),
    upstream="vllm#41745",
    diagnoses=(Diagnosis("INTSIZE", "vllm-project/vllm#41745", "Use a release."),),
    severity="slow",
    response="change-release",
)
PASSED = Record("ACC-02", "Every position reaches its floor.", "qualify", Verdict.PASS, "ok", 2.0, POSITIONS)


UNSURE = Record(
    "SPEED-01",
    "Requests in a row are answered faster with MTP.",
    "qualify",
    Verdict.INCONCLUSIVE,
    "2.510 [2.402, 2.625] may or may not reach 2.45",
    160.0,
    (Finding(Verdict.INCONCLUSIVE, "s", "2.510", "2.45", 36, (2.402, 2.625), "observations/load.json"),),
)
LACKING = tuple(
    Record(f"NUM-0{number}", "A claim.", "qualify", Verdict.UNSUPPORTED, "nothing is known of HUMMING's bound", 0.0)
    for number in (1, 2)
)
FIGURES = (
    Row("all prompts", 4.925, 4.85, 4.969, 120, 3.68, figure="acceptance length"),
    Row("in a row", 2.51, 2.402, 2.625, 36, 2.45, figure="speedup in a row"),
    Row("8 at once", 2.642, 2.556, 2.731, 80, 2.2, figure="speedup 8 at once"),
    Row("with MTP against without", 0.996, 0.98, 1.0, 275, figure="equal greedy texts"),
)


def run(*records: Record, **changes: object) -> Run:
    base = Run("cpu", "pair", "qualify", "evidence/x", tuple(r.id for r in records), records)
    return replace(base, **changes)  # type: ignore[arg-type]


def table(subject: Run, *, show: str = "all", colour: bool = False, width: int | None = None) -> str:
    return render(subject, judge_run(subject), FIGURES, show=show, colour=colour, width=width)


def test_the_next_command_is_whole_however_narrow_the_terminal() -> None:
    folder = f"/home/{'long/' * 30}run"
    assert f"    next: qualify show {folder} DRAFT-01\n" in table(
        run(FAILED, evidence=folder), show="summary", width=80
    )


def test_the_table_has_every_column_of_every_row() -> None:
    text = table(run(FAILED, PASSED))
    (head,) = (line for line in text.splitlines() if "claim" in line and "interval" in line)
    assert all(word in head for word in ("id", "claim", "value", "floor", "n", "interval", "verdict", "time"))
    assert all(finding.value in text and finding.floor in text for finding in POSITIONS)
    assert "0.900 to 0.950" in text
    assert "31.2 s" in text


def test_a_row_that_did_not_pass_is_explained() -> None:
    text = table(run(FAILED, PASSED))
    assert FAILED.sentence in text
    assert "evidence: evidence/x/observations/draft_load.json" in text
    assert "known failure INTSIZE (vllm-project/vllm#41745): Use a release." in text
    assert "upstream: vllm#41745" in text
    assert "log line 39" in text
    assert "log line 5 " not in text


def test_what_holds_for_several_rows_is_said_once() -> None:
    text = table(run(FAILED, replace(FAILED, id="DRAFT-02", claim="Another claim."), PASSED))
    assert "FAIL DRAFT-01  " in text
    assert "FAIL DRAFT-02  Another claim." in text
    assert text.count(FAILED.sentence) == text.count("log line 39") == text.count("known failure INTSIZE") == 1


@pytest.mark.parametrize("show", SHOWN)
def test_the_judgement_is_first_and_the_evidence_last(show: str) -> None:
    sentence, counts, *_, evidence = table(run(FAILED, PASSED), show=show).splitlines()
    assert sentence == "Not qualified: DRAFT-01 failed."
    assert counts == "1 PASS, 1 FAIL"
    assert evidence == "Evidence: evidence/x"


@pytest.mark.parametrize("width", [80, 160])
@pytest.mark.parametrize("show", SHOWN)
def test_the_end_of_a_run_is_as_kept(show: str, width: int) -> None:
    subject = run(PASSED, FAILED, UNSURE, *LACKING, pages.WAIVED, problems=("a waiver expired",))
    expect_snapshot(f"end-{show}-{width}", table(subject, show=show, width=width))


def test_a_clean_run_is_told_in_a_few_lines() -> None:
    text = table(run(PASSED), show="summary")
    assert len(text.splitlines()) <= 10
    assert "next:" not in text


def test_every_check_that_needs_attention_has_a_next_command() -> None:
    text = table(run(FAILED, UNSURE, *LACKING), show="summary")
    assert re.findall("next: qualify show evidence/x (.+)", text) == ["DRAFT-01", "SPEED-01"]
    assert "value 2.510 [2.402, 2.625], bound 2.45, n = 36" in text
    assert "severity slow; response change-release: Use another release of vLLM" in text
    assert "UNSUPPORTED NUM-01, NUM-02: nothing is known of HUMMING's bound" in text


def test_a_long_message_is_cut_in_the_summary_only() -> None:
    subject = run(replace(FAILED, sentence="word " * 400 + "end"))
    assert "(...)" in table(subject, show="summary")
    assert "end" not in table(subject, show="summary").partition("next:")[0].split()
    assert "end" in table(subject, show="failures").split()


def test_inconclusive_is_not_red() -> None:
    text = table(run(UNSURE, PASSED), show="summary", colour=True, width=100)
    assert "\x1b[1;31m" not in text
    assert "\x1b[1;33mInconclusive" in text
    assert "\x1b[1;31m" in table(run(FAILED), show="summary", colour=True)


def test_a_note_is_shown_once() -> None:
    assert table(run(PASSED)).count("ACC-02: a note") == 1


def test_a_log_gets_plain_characters() -> None:
    text = table(run(FAILED, PASSED))
    assert "\x1b" not in text
    assert not set(text) & set("─│┌━")
    assert "\x1b[" in table(run(FAILED, PASSED), colour=True)


@pytest.mark.parametrize("colour", [True, False])
def test_what_a_model_wrote_commands_no_terminal(colour: bool) -> None:
    written = "\x1b]0;gone\x07\x1b[2J\x9b2J [bold]x[/nothing]"
    finding = replace(FAILED.findings[0], value=written, note=written)
    said = replace(FAILED, sentence=written, claim=written, details=written, findings=(finding,))
    text = "".join(table(run(said), show=show, colour=colour, width=200) for show in SHOWN)
    assert not any(command in text for command in ("\x1b]", "\x1b[2J", "\x9b", "\x07"))
    assert "[bold]x[/nothing]" in text


@pytest.mark.parametrize("width", [80, 100, 200])
@pytest.mark.parametrize("show", SHOWN)
def test_it_fits_its_terminal(show: str, width: int) -> None:
    body = table(run(PASSED, FAILED, UNSURE, *LACKING), show=show, width=width)
    assert max(len(line) for line in body.splitlines()) <= width
    assert show != "all" or all(finding.value in body for finding in POSITIONS)


def test_markup_in_a_message_is_text() -> None:
    text = table(run(replace(FAILED, sentence="[bold]x[/bold] is [1, 2]")))
    assert "[bold]x[/bold] is [1, 2]" in text


@pytest.mark.parametrize(
    ("verdict", "element"),
    [
        (Verdict.PASS, None),
        (Verdict.FAIL, "failure"),
        (Verdict.INCONCLUSIVE, "failure"),
        (Verdict.ERROR, "error"),
        (Verdict.UNSUPPORTED, "skipped"),
        (Verdict.WAIVED, "skipped"),
    ],
)
def test_junit_knows_the_verdicts(verdict: Verdict, element: str | None) -> None:
    subject = run(replace(FAILED, verdict=verdict, waiver="known" if verdict is Verdict.WAIVED else ""))
    suite = ET.fromstring(junit(subject, judge_run(subject)))[0]
    case = suite.find("testcase")
    assert case is not None
    assert {child.tag for child in case} == {"properties"} | ({element} if element else set())
    if element:
        assert case.find(element).get("type") == verdict  # type: ignore[union-attr]
    counts = {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")}
    expected = {"failure": "failures", "error": "errors", "skipped": "skipped", None: ""}[element]
    assert counts == {"tests": "1", "failures": "0", "errors": "0", "skipped": "0"} | (
        {expected: "1"} if expected else {}
    )


def test_junit_carries_value_floor_n_and_interval() -> None:
    subject = run(PASSED)
    suite = ET.fromstring(junit(subject, judge_run(subject)))[0]
    facts = {p.get("name"): p.get("value") for p in suite.findall("testcase/properties/property")}
    assert facts["value.2"] == "0.921"
    assert facts["floor.2"] == "0.2"
    assert facts["n.2"] == "120"
    assert facts["interval.2"] == "0.9 0.95"
    assert facts["source.2"] == "observations/acceptance.json"


def test_junit_survives_control_characters() -> None:
    subject = run(FAILED)
    text = ET.fromstring(junit(subject, judge_run(subject))).findtext("testsuite/testcase/failure")
    assert text is not None
    assert "known failure INTSIZE" in text
    assert "\x1b" not in text


def test_a_problem_of_the_run_is_an_error_in_junit() -> None:
    subject = run(PASSED, problems=("a waiver expired",))
    suite = ET.fromstring(junit(subject, judge_run(subject)))[0]
    assert suite.get("errors") == "1"
    assert suite.find("testcase/error") is not None


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def screen_of(out: list[str]) -> list[str]:
    """The lines that a terminal shows after these writes."""
    lines = [""]
    row = 0
    for text in out:
        for code, plain in re.findall(r"(\x1b\[\d*[A-Za-z]|\x1b\[[\d;]*m|\r|\n)|([^\x1b\r\n]+)", text):
            if code.endswith("A"):
                row -= int(code[2:-1])
            elif code == "\x1b[J":
                lines = [*lines[:row], ""]
            elif code == "\n":
                row += 1
                lines += [""] * (row + 1 - len(lines))
            elif plain:
                lines[row] += plain
    return lines


def test_a_terminal_gets_a_status_that_rewrites_itself() -> None:
    out: list[str] = []
    clock = Clock()
    progress = Progress(out.append, terminal=True, width=40, clock=clock)
    progress("loading mtp … 3 s: a line of its log that is longer than the terminal")
    clock.now = 2.0
    progress("loading plain … 1 s: no output yet")
    progress("loading mtp … 5 s: another line")
    progress.judged(Verdict.PASS, 4)
    progress.judged(Verdict.FAIL, 4)
    progress("8 at once, round 2 of at most 8")
    bar, counts, *said = screen_of(out)
    assert bar.endswith("[   2 s]")
    assert counts == "2 of 4 checks judged: 1 PASS, 1 FAIL"
    assert (
        said
        == ["loading plain … 1 s: no output yet", "loading mtp … 5 s: another line", "8 at once, round 2 of at most 8"][
            -3:
        ]
    )
    clock.now = 60.0
    progress("stopping servers")
    assert screen_of(out)[2:] == ["stopping servers"]
    progress.clear()
    assert "".join(screen_of(out)) == ""


def test_the_bar_follows_the_time_of_the_last_run() -> None:
    out: list[str] = []
    clock = Clock()
    progress = Progress(out.append, terminal=True, width=80, clock=clock)
    progress.left = lambda elapsed: 100 - elapsed
    clock.now = 50.0
    progress("half")
    filled, empty = (part.count("━") for part in re.split("╸|╺", out[-1]))
    assert abs(filled - 15) <= 1
    assert filled + empty >= 28
    assert "about 50 s left" in screen_of(out)[0]


def test_what_a_log_says_commands_no_terminal() -> None:
    out: list[str] = []
    Progress(out.append, terminal=True, clock=Clock())("loading mtp … 3 s: \x1b]0;gone\x07\x1b[2J")
    assert "\x1b]" not in "".join(out)
    assert "\x1b[2J" not in "".join(out)


def test_a_log_gets_a_line_every_few_seconds() -> None:
    out: list[str] = []
    clock = Clock()
    progress = Progress(out.append, terminal=False, clock=clock)
    for second in range(12):
        clock.now = float(second)
        progress(f"loading {second}")
    progress.clear()
    assert out == ["[   5 s] loading 5\n", "[  10 s] loading 10\n"]


def test_the_picture_holds_the_table_and_asks_nobody_for_fonts() -> None:
    subject = run(FAILED, PASSED)
    svg = picture(subject, judge_run(subject))
    assert ET.fromstring(svg).tag.endswith("svg")
    assert "DRAFT-01" in svg
    assert "url(http" not in svg.replace(" ", "").replace("&#160;", "")
