"""Several runs beside each other: judged again, grouped, and marked where one is unlike the others, with the rule."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from support import judged_runs, pages, synthetic

from conformance import PACKAGE
from conformance.commands.main import main
from conformance.evidence.folder import Evidence
from conformance.judging.stats import Estimate
from conformance.judging.verdict import ExitCode, Verdict, judge_run
from conformance.reports import fleet_table
from conformance.run.judge_fleet import LIMIT, MINIMUM, Row, group_rows, modified_z, read_row, worst

SCHEMA = Draft202012Validator(json.loads((PACKAGE / "reports/fleet.schema.json").read_text()))
QUALIFIED, FAILED = "Qualified: all checks passed.", "Not qualified: DRAFT-01 failed."
LENGTHS = (3.92, 3.95, 3.90, 3.93, 3.91)


def row(name: str, length: float = 3.9, **changes: object) -> Row:
    """A run that was judged."""
    figures = {
        "acceptance length": Estimate(length, length - 0.1, length + 0.1, 120, "bootstrap"),
        "speedup in a row": Estimate(2.5, 2.4, 2.6, 120, "bootstrap"),
    }
    about = {"hardware": "gb10", "machine": "aarch64, 20 cores", "pair": "some-pair", "level": "qualify"}
    found = {"vllm": "0.32.0", "exit_code": ExitCode.QUALIFIED, "sentence": QUALIFIED, "figures": figures, "best_k": 4}
    return Row(name, **(about | found | changes))  # type: ignore[arg-type]


def failed(name: str) -> Row:
    return row(name, exit_code=ExitCode.NOT_QUALIFIED, sentence=FAILED, not_passed={"DRAFT-01": Verdict.FAIL})


def marks(*rows: Row) -> dict[str, tuple[str, ...]]:
    return {each.evidence: each.marks for found in group_rows(rows) for each in found.rows if each.marks}


def alike(*lengths: float) -> list[Row]:
    return [row(f"node-{number}", length) for number, length in enumerate(lengths)]


def test_equal_machines_have_no_mark() -> None:
    assert marks(*alike(*LENGTHS)) == {}
    assert marks(*alike(*[3.9] * 8)) == {}


def test_a_value_far_from_the_others_is_marked_with_its_rule() -> None:
    found = marks(*alike(*LENGTHS), row("odd", 3.1))
    said = "acceptance length 3.100, where 3.915 is the median of 6 (modified z-score -36.6)"
    assert found == {"odd": (said,)}


def test_one_value_unlike_many_equal_ones_is_marked() -> None:
    """Greedy text makes equal acceptance lengths, so that the median of the deviations is 0."""
    assert list(marks(*alike(*[3.9] * 7), row("odd", 3.8))) == ["odd"]


def test_wild_values_do_not_hide_each_other() -> None:
    """Which is what the mean and the standard deviation let them do."""
    values = [*LENGTHS, 3.94, 3.92, 9.0, 9.1]
    spread = np.std(values)
    assert max(abs(values - np.mean(values)) / spread) < 3
    assert list(marks(*alike(*values))) == ["node-7", "node-8"]


def test_few_values_are_not_held_against_each_other() -> None:
    assert MINIMUM == 5
    assert modified_z(9.0, [3.9, 3.91, 3.92, 9.0]) == 0
    assert modified_z(9.0, [3.9, 3.91, 3.92, 3.93, 9.0]) > LIMIT
    assert modified_z(3.9, [3.9] * 5) == 0


def test_the_modified_z_score_is_the_published_one() -> None:
    """Iglewicz and Hoaglin: 0.6745 (x - median) / MAD."""
    assert modified_z(10.0, [1.0, 2.0, 3.0, 4.0, 10.0]) == pytest.approx(0.6745 * 7 / 1)
    assert modified_z(1.0, [1.0, 2.0, 3.0, 4.0, 10.0]) == pytest.approx(0.6745 * -2 / 1)


def test_a_verdict_against_the_majority_is_marked() -> None:
    assert marks(row("a"), row("b"), failed("c")) == {
        "c": ("verdict not qualified, where 2 of 3 are qualified (majority)",)
    }
    assert marks(failed("a"), failed("b"), row("c")) == {
        "c": ("verdict qualified, where 2 of 3 are not qualified (majority)",)
    }
    assert marks(row("a"), failed("b")) == {}, "one against one is no majority"


def test_pairs_and_levels_are_grouped_apart() -> None:
    found = group_rows([row("a"), row("b", pair="other"), row("c", level="smoke"), row("d")])
    assert [(each.pair, each.level, len(each.rows)) for each in found] == [
        ("some-pair", "qualify", 2),
        ("other", "qualify", 1),
        ("some-pair", "smoke", 1),
    ]
    assert marks(*alike(*LENGTHS), row("another", 3.1, pair="other")) == {}


def test_what_was_not_read_counts_neither_for_nor_against() -> None:
    lost = [Row(f"lost-{number}", pair="some-pair", level="qualify", problem="unfinished") for number in range(9)]
    assert marks(*lost, row("a"), row("b"), failed("c")).keys() == {"c"}
    assert marks(*lost) == {}


def test_the_gravest_exit_code_is_that_of_all() -> None:
    assert worst(group_rows([row("a"), row("b")])) is ExitCode.QUALIFIED
    assert worst(group_rows([row("a"), Row("b", problem="unfinished")])) is ExitCode.INSTRUMENT
    assert worst(group_rows([failed("a"), Row("b", problem="unfinished")])) is ExitCode.NOT_QUALIFIED
    assert worst(group_rows([row("a"), row("b", exit_code=ExitCode.INCONCLUSIVE)])) is ExitCode.INCONCLUSIVE


def test_the_table_shows_every_run_and_why_it_is_marked() -> None:
    groups = group_rows(
        [*alike(*LENGTHS), failed("odd"), Row("lost", pair="some-pair", level="qualify", problem="why")]
    )
    text = fleet_table.as_text(groups)
    assert text.isascii()
    assert text.startswith("some-pair, level qualify: 5 qualified, 1 not qualified, 1 not read\n")
    assert re.search(r"\|! \|odd .*\|not qualified \|3\.900 \[3\.800, 4\.000\] \|2\.50 .*\|4 .*\|FAIL DRAFT-01", text)
    assert "odd: verdict not qualified, where 5 of 6 are qualified (majority)" in text
    assert "lost: why" in text
    assert "\x1b[" in fleet_table.as_text(groups, colour=True)
    assert "\x1b" not in fleet_table.as_text(group_rows([row("\x1b[31mred")]))


def test_many_checks_that_did_not_pass_are_counted() -> None:
    many = {"API-07": Verdict.WAIVED} | {f"ENV-{number:02}": Verdict.ERROR for number in range(1, 8)}
    text = fleet_table.as_text(group_rows([row("a", not_passed=many)]), width=400)
    assert "ERROR ENV-01, ENV-02, ENV-03, ENV-04 and 3 more; WAIVED API-07" in text


def test_markdown_is_a_table_whatever_runs_are_called() -> None:
    text = fleet_table.as_markdown(group_rows([row(pages.ATTACK, hardware="a|b"), row("b")]))
    assert "<script" not in text
    assert "@somebody" not in text
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {11}
    assert len(lines) == 2 + 2


def test_json_is_in_its_agreed_shape() -> None:
    groups = group_rows([row("a"), failed("b"), Row("c", problem="unfinished")])
    document = json.loads(fleet_table.as_json(groups))
    SCHEMA.validate(document)
    runs = [run for each in document["groups"] for run in each["runs"]]
    assert [run["exit_code"] for run in runs] == [0, 1, 4]
    assert runs[1]["not_passed"] == {"DRAFT-01": "FAIL"}
    del runs[0]["marks"]
    assert list(SCHEMA.iter_errors(document))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two healthy runs, one damaged, and five of which there is nothing to judge."""
    folder = tmp_path_factory.mktemp("runs")
    documents = synthetic.healthy()
    synthetic.record(folder / "a", documents)
    liar = synthetic.record(folder / "b", documents, finished=False)
    run = pages.run_of(liar, *pages.EVERY)
    judged_runs.write_verdicts(liar, run, judge_run(run))
    Evidence(liar, recording=True).finish()
    documents["draft_load"]["draft"]["parameters"]["model.norm.weight"]["sha256"] = "0" * 64
    del documents["sweep"]
    synthetic.record(folder / "damaged", documents)
    synthetic.record(folder / "unfinished", {}, finished=False)
    changed = synthetic.record(folder / "changed", {})
    (changed / "logs/mtp.log").write_text("another")
    broken = synthetic.record(folder / "broken", {})
    (broken / "header.json").write_text('{"hardware": ')
    strange = synthetic.record(folder / "strange", {})
    (strange / "profile.json").write_text("[]")
    Evidence(strange, recording=True).finish()
    (folder / "empty").mkdir()
    return folder


def state_of(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.usefixtures("no_waivers")
def test_runs_are_judged_again_and_left_as_they_are(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(runs)
    before = state_of(runs)
    assert main(["combine", "a", "b", "damaged", "a", "--json"]) == 1
    out, _ = capfd.readouterr()
    document = json.loads(out)
    SCHEMA.validate(document)
    assert state_of(runs) == before
    (found,) = document["groups"]
    assert (found["pair"], found["level"]) == ("micro-26b-a4b-nvfp4", "qualify")
    one, other, damaged = found["runs"]
    assert (one["verdict"], other["verdict"], damaged["verdict"]) == ("qualified", "qualified", "not qualified")
    assert other["not_passed"] == {}, "what the journal says is not asked"
    assert damaged["not_passed"]["DRAFT-03"] == "FAIL"
    assert damaged["marks"] == ["verdict not qualified, where 2 of 3 are qualified (majority)"]
    assert (one["best_k"], damaged["best_k"]) == (7, None)
    assert list(one["figures"]) == [
        *("acceptance length", "speedup in a row"),
        *("speedup 3 at once", "speedup 8 at once", "speedup 17 at once"),
    ]
    length = one["figures"]["acceptance length"]
    assert length["low"] < length["value"] < length["high"]
    assert one["machine"] == "x86_64 AVX512, 2 cores"


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("unfinished", "has no manifest.json"),
        ("changed", "mtp.log was changed"),
        ("broken", "header.json cannot be read"),
        ("strange", "profile.json"),
        ("empty", "holds no evidence"),
    ],
)
def test_what_cannot_be_judged_is_a_row_that_says_so(runs: Path, name: str, problem: str) -> None:
    found = read_row(runs / name)
    assert problem in found.problem
    assert found.verdict == "not read"
    assert not found.figures
    groups = group_rows([found])
    assert problem in fleet_table.as_text(groups)
    SCHEMA.validate(json.loads(fleet_table.as_json(groups)))


def test_a_folder_that_is_not_there_is_bad_input(runs: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["combine", str(runs / "empty"), str(runs / "nowhere")]) == 2
    out, err = capfd.readouterr()
    assert (out, err) == ("", f"qualify: {runs}/nowhere is not a folder: name folders that qualify has recorded.\n")


def test_a_run_that_pytest_cannot_judge_is_a_row_too(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from conformance.run import judge_evidence

    monkeypatch.setattr(judge_evidence.pytest, "main", lambda *_, **__: print("the last word") or 3)
    assert read_row(runs / "a").problem == f"{runs}/a cannot be judged: the last word"


def test_a_mark_takes_the_row_of_its_run_alone() -> None:
    rows = [*alike(*LENGTHS), failed("odd")]
    (found,) = group_rows(rows)
    assert [replace(each, marks=()) for each in found.rows] == rows
