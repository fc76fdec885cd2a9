"""The reports as files: Markdown for a comment, JSON for programs, written by every judging and by nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from support import pages, synthetic

from conformance import PACKAGE
from conformance.commands.main import main
from conformance.evidence.folder import REPORTS, verify
from conformance.judging.catalogue import at_level, catalogue
from conformance.judging.verdict import judge_run
from conformance.reports.markdown import as_markdown
from conformance.reports.report_files import write_reports
from conformance.reports.report_json import as_json

SCHEMA = Draft202012Validator(json.loads((PACKAGE / "reports/report.schema.json").read_text()))


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> str:
    evidence = synthetic.record(tmp_path_factory.mktemp("evidence") / "run", pages.diverged())
    return as_markdown(pages.report_of(evidence, *pages.EVERY, problems=("a waiver expired",)))


def test_markdown_begins_with_the_verdict_and_what_did_not_pass(attacked: str) -> None:
    shown, folded, rest = attacked.partition("<details>")
    assert shown.startswith("### ❌ Not qualified: DRAFT-01 failed;")
    assert "- **ERROR** of the run: a waiver expired" in shown
    rows = [line for line in shown.splitlines() if line.startswith("| **")]
    assert [row.split("|")[2].strip() for row in rows] == ["DRAFT-01", "ENV-03", "ENV-01", "ENV-02", "API-07"]
    assert "known failure INTSIZE" in shown
    assert "waived: a grammar is no client's fault" in shown
    assert "| acceptance length | " in shown
    assert folded
    assert "All 6 checks" in rest


def test_markdown_has_a_row_for_every_finding(attacked: str) -> None:
    table = attacked.partition("All 6 checks</summary>")[2].partition("</details>")[0]
    rows = [line for line in table.splitlines() if line.startswith("|")][2:]
    assert len(rows) == 4 + 5
    claim = "Joint acceptance reaches its floor at every draft position."
    assert f"| PASS | ACC-02 | {claim} | 0.911 | 0.1 | 0.900 to 0.950 | 120 |" in rows


def test_markdown_calls_nobody_and_breaks_no_table(attacked: str) -> None:
    assert "<script" not in attacked
    assert "<img" not in attacked
    assert "@somebody" not in attacked
    assert not re.search(r"(?<!\\)\]\(", attacked)
    tables = [line for line in attacked.splitlines() if line.startswith("|")]
    columns = {len(re.findall(r"(?<!\\)\|", line)) for line in tables}
    assert columns == {8, 5, 3}


def test_a_long_sentence_is_cut(attacked: str) -> None:
    assert "…" in attacked
    assert pages.UNBROKEN not in attacked


def test_json_is_in_its_agreed_shape(tmp_path: Path) -> None:
    run = pages.run_of(tmp_path, *pages.EVERY, problems=("a waiver expired",))
    document = json.loads(as_json(run, judge_run(run)))
    SCHEMA.validate(document)
    assert document["exit_code"] == 1
    assert [row["id"] for row in document["verdicts"]] == [record.id for record in pages.EVERY]
    assert document["verdicts"][1]["findings"][0]["sentence"] == pages.ATTACK


@pytest.mark.parametrize("key", ["sentence", "verdicts", "complete"])
def test_json_that_lacks_something_is_noticed(tmp_path: Path, key: str) -> None:
    run = pages.run_of(tmp_path, *pages.EVERY)
    document = json.loads(as_json(run, judge_run(run)))
    del document[key]
    assert list(SCHEMA.iter_errors(document))


@pytest.mark.usefixtures("no_waivers")
def test_judging_again_writes_the_reports_again(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    evidence = synthetic.record(tmp_path / "run", synthetic.healthy())
    (evidence / "report.md").write_text("of another day")
    assert main(["rejudge", str(evidence), "--json"]) == 0
    out, err = capfd.readouterr()
    assert err.endswith(f"Report: {evidence / 'report.html'}\n")
    assert (evidence / "report.json").read_text() == out
    assert (evidence / "report.md").read_text().startswith("### ✅ Qualified: ")
    assert all((evidence / name).is_file() for name in REPORTS)
    SCHEMA.validate(json.loads(out))
    assert json.loads(out)["servers"] == [synthetic.START]
    page = (evidence / "report.html").read_text()
    assert all(f'<details id="{check.id}"' in page for check in at_level(catalogue(), "qualify"))
    assert "VLLM_CPU_OMP_THREADS_BIND=0-1\n" in page
    assert "\npython -m vllm.entrypoints.openai.api_server --speculative-config" in page
    verify(evidence)


def test_a_damaged_note_of_a_start_is_said_on_the_page(tmp_path: Path) -> None:
    evidence = synthetic.record(tmp_path / "run", {})
    (evidence / "servers/mtp.json").write_text('{"name": "mtp"}')
    write_reports(pages.report_of(evidence, pages.PASSED))
    assert "servers/mtp.json does not match its schema" in (evidence / "report.html").read_text()
    assert json.loads((evidence / "report.json").read_text())["servers"] == []


def test_evidence_that_cannot_be_written_to_is_judged_all_the_same(tmp_path: Path) -> None:
    evidence = synthetic.record(tmp_path / "run", {})
    (evidence / "report.html").mkdir()  # no user, not even root, can put a file there
    said = write_reports(pages.report_of(evidence, pages.PASSED))
    assert said.startswith("No report was written: ")
