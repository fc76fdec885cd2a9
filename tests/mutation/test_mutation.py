"""What mutmut found, as it is read, recorded and explained."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mutation.page import SURVIVORS, left, load_reasons, reason_of, recorded, score, section, survivors
from mutation.survivors import KILLED, SURVIVED, TIMED_OUT, UNTESTED, Mutant, counts, mutants

SOURCE = """class Plan:
    def xǁPlanǁadd__mutmut_orig(a, b):
        return a + b
    def xǁPlanǁadd__mutmut_1(a, b):
        return a - b
    def xǁPlanǁadd__mutmut_2(a, b):
        return a + b
"""
SPANS = {"xǁPlanǁadd__mutmut_orig": [2, 3], "xǁPlanǁadd__mutmut_1": [4, 5], "xǁPlanǁadd__mutmut_2": [6, 7]}


def write(folder: Path, codes: dict[str, int]) -> Path:
    """A folder as mutmut leaves it, with one file."""
    file = folder / "conformance/judging/plan.py"
    file.parent.mkdir(parents=True)
    file.write_text(SOURCE)
    file.with_name("plan.py.spans").write_text(json.dumps({"version": 1, "spans": SPANS}))
    keys = {f"conformance.judging.plan.xǁPlanǁadd__mutmut_{number}": code for number, code in codes.items()}
    meta = {"exit_code_by_key": keys, "durations_by_key": dict.fromkeys(keys, 0.5)}
    file.with_name("plan.py.meta").write_text(json.dumps(meta))
    return folder


def test_a_survivor_is_told_by_what_it_changes(tmp_path: Path) -> None:
    found = list(mutants(write(tmp_path, {"1": 0, "2": 1})))
    assert [each.status for each in found] == [SURVIVED, KILLED]
    assert found[0].text == "judging.plan.Plan.add: return a + b -> return a - b"
    assert counts(found) == {"judging.plan": {SURVIVED: 1, KILLED: 1}}
    assert sum(each.seconds for each in found) == 1


@pytest.mark.parametrize(("code", "status"), [(33, UNTESTED), (-24, TIMED_OUT), (3, KILLED)])
def test_ends_of_a_mutant(code: int, status: str, tmp_path: Path) -> None:
    assert next(mutants(write(tmp_path, {"1": code}))).status == status


def test_an_end_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="77"):
        list(mutants(write(tmp_path, {"1": 77})))


def test_what_runs_out_of_time_or_has_no_test_is_not_noticed() -> None:
    assert score({KILLED: 6, SURVIVED: 1, UNTESTED: 2, TIMED_OUT: 1}) == 0.6


@pytest.mark.parametrize(
    ("was", "now", "reason"),
    [
        ("return a + b", "return a - b", "No test looks at this yet"),
        ("if a < b:", "if a <= b:", "A bound"),
        ("if a < b:", "if a < c:", "No test looks at this yet"),
        ("for a, b in zip(x, y, strict=True):", "for a, b in zip(x, y, ):", "The same result: the sequences"),
        ("for a, b in zip(x, y, strict=False):", "for a, b in zip(x, y, strict=True):", "No test looks at this yet"),
        ('return ", ".join(names)', 'return "XX, XX".join(names)', "A separator"),
        ('raise ValueError("no such rate")', 'raise ValueError("NO SUCH RATE")', "The words of an error"),
        ('raise ValueError("no such rate")', "raise ValueError(None)", "The words of an error"),
        ('return "no drafts" if k else ""', 'return "XXno draftsXX" if k else ""', "The words of a note"),
        ('return row["key"]', 'return row["XXkeyXX"]', "No test looks at this yet"),
        ('return row.get("k", 0) + 1', 'return row.get("k", None) + 1', "A key that every document"),
    ],
)
def test_a_survivor_has_the_first_reason_that_fits(was: str, now: str, reason: str) -> None:
    assert reason_of(Mutant("judging.plan", "Plan.add", SURVIVED, was, now)).startswith(reason)


def test_every_reason_has_a_survivor() -> None:
    rows = left(recorded())
    assert {each.why for each in load_reasons()} == {reason_of(each) for each in rows}


def test_the_record_is_above_the_score_that_is_asked_for() -> None:
    modules = recorded()["modules"].values()
    assert sum(row.get(KILLED, 0) for row in modules) >= 0.9 * sum(sum(row.values()) for row in modules)


def test_the_pages_are_made_from_the_record() -> None:
    assert SURVIVORS.read_text(encoding="utf-8") == survivors(left(recorded())), "out of date: scripts/mutate --page"
    assert section(recorded()) in Path(SURVIVORS.parents[1] / "detection.md").read_text(encoding="utf-8")
