"""``qualify list`` and ``qualify history``: every recorded run, and what was not measured apart from what is bad."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
from support import judged_runs, pages, synthetic
from support.snapshots import expect_snapshot

from conformance import PACKAGE
from conformance.commands.main import main
from conformance.evidence.folder import Evidence
from conformance.judging.verdict import Record, Verdict, judge_run
from conformance.reports.runs_table import find_runs, history_as_text, list_as_text

SCHEMA = jsonschema.Draft202012Validator(json.loads((PACKAGE / "reports/runs.schema.json").read_text("utf-8")))


def recorded(folder: Path, started: str, *records: Record, finished: bool = True) -> None:
    """A run with these verdicts."""
    synthetic.record(folder, {"near_ties": synthetic.ties()} if finished else {}, finished=False)
    synthetic.header(folder, started=started, vllm="0.32.0")
    run = pages.run_of(folder, *records)
    judged_runs.write_verdicts(folder, run, judge_run(run) if finished else None)
    if finished:
        Evidence(folder, recording=True).finish()


@pytest.fixture(autouse=True)
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    bad = replace(pages.PASSED, verdict=Verdict.FAIL)
    lacking = replace(pages.PASSED, verdict=Verdict.UNSUPPORTED)
    recorded(tmp_path / "evidence/c", "2026-11-03T00:00:00Z", lacking, replace(pages.FAILED, verdict=Verdict.PASS))
    recorded(tmp_path / "evidence/a", "2026-11-01T00:00:00Z", pages.PASSED, pages.FAILED)
    recorded(tmp_path / "evidence/b", "2026-11-02T00:00:00Z", bad)
    recorded(tmp_path / "evidence/d", "2026-11-04T00:00:00Z", finished=False)
    (tmp_path / "evidence/other").mkdir()
    return tmp_path / "evidence"


def test_runs_are_listed_by_date(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    text = capsys.readouterr().out
    expect_snapshot("list", text)
    assert [line for line in text.splitlines() if not line.startswith(" ")] == [f"evidence/{name}" for name in "abcd"]
    assert main(["list", "evidence/a", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    SCHEMA.validate(document)
    assert [each["exit_code"] for each in document["runs"]] == [1]


def test_nothing_recorded_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path / "evidence/other")
    assert main(["list"]) == 0
    assert capsys.readouterr().out == "No recorded run.\n"
    (tmp_path / "evidence/other/empty").mkdir()
    for command in ("list", "history"):
        assert main([command, "nowhere"]) == 2
        assert "nowhere is no folder" in capsys.readouterr().err
        assert main([command, "empty"]) == 2
        assert "empty holds no recorded run" in capsys.readouterr().err


def test_what_was_not_measured_stands_apart_from_what_is_bad(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["history", "evidence"]) == 0
    text = capsys.readouterr().out
    expect_snapshot("history", text)
    rows = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line}
    assert rows["ACC-02"] == ["+", "F", ".", "."]
    assert rows["DRAFT-01"] == ["F", ".", "+", "."]
    assert rows["equal"][-1] == "."


@pytest.mark.parametrize("width", [80, 160])
def test_both_tables_fit_a_terminal(width: int) -> None:
    found = find_runs([Path("evidence")])
    for name, table in (("list", list_as_text), ("history", history_as_text)):
        text = table(found, width=width)
        expect_snapshot(f"{name}-{width}", text)
        assert max(map(len, text.splitlines())) <= width


def test_history_has_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["history", "evidence", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    SCHEMA.validate(document)
    assert [each["verdicts"].get("DRAFT-01") for each in document["runs"]] == ["FAIL", None, "PASS", None]
    assert [sorted(each["figures"]) for each in document["runs"]] == [["equal greedy texts"]] * 3 + [[]]
