"""scripts/audit: nothing that was not looked up, and no finding without a decision, counts as good."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import date
from typing import Any

import pytest
from support.paths import ROOT
from support.scripts import load_script

audit = load_script("audit")
TODAY = date(2026, 12, 1)
VULNERABLE = {
    "name": "jinja2",
    "version": "3.1.5",
    "vulns": [{"id": "PYSEC-1", "aliases": ["GHSA-1"], "fix_versions": ["3.1.6"], "description": ""}],
}
CLEAN = {"name": "filelock", "version": "4.2.12", "vulns": []}
SKIPPED = {"name": "torch", "skip_reason": "Dependency not found on PyPI and could not be audited: torch (2.13.0+cpu)"}


def finding(**changes: Any) -> dict[str, Any]:
    return {"finding": {"GHSA-1": {"package": "jinja2", "reason": "unused", "until": date(2027, 1, 1)} | changes}}


def left(triage: dict[str, Any], *packages: dict[str, Any]) -> list[str]:
    return list(audit.undecided({"dependencies": packages}, triage, TODAY))


def test_what_is_clean_or_decided_is_left_alone() -> None:
    assert left({}, CLEAN) == []
    assert left(finding(), VULNERABLE, CLEAN) == []
    assert left({"unaudited": {"torch": "elsewhere"}}, SKIPPED) == []


def test_what_was_not_looked_up_is_not_clean() -> None:
    (line,) = left({}, SKIPPED, CLEAN)
    assert line.startswith("torch was not audited: Dependency not found")


@pytest.mark.parametrize(
    ("triage", "words"),
    [
        ({}, "jinja2 3.1.5 has PYSEC-1 (fixed in 3.1.6): lock another"),
        (finding(package="other"), "lock another"),
        (finding(until=date(2026, 11, 30)), "accepted until 2026-11-30"),
    ],
)
def test_a_finding_without_a_decision_is_left(triage: dict[str, Any], words: str) -> None:
    (line,) = left(triage, VULNERABLE)
    assert words in line


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[finding.X]\npackage = 'a'\nreason = 'b'\n", "finding X has no until"),
        ("[finding.X]\npackage = 'a'\nreason = 'b'\nuntil = '2027'\n", "write a date"),
    ],
)
def test_a_wrong_triage_is_refused(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        audit.read_triage(text)


@pytest.mark.parametrize(
    ("report", "code"),
    [(json.dumps({"dependencies": [CLEAN]}), 0), (json.dumps({"dependencies": [VULNERABLE]}), 1), ("No known", 2)],
)
def test_the_command(report: str, code: int) -> None:
    done = subprocess.run([sys.executable, ROOT / "scripts/audit"], input=report, capture_output=True, text=True)
    assert done.returncode == code
    assert ("add --format json" in done.stderr) == (code == 2)


def test_the_triage_of_the_project_is_in_order() -> None:
    triage = audit.read_triage((ROOT / "envs/audit.toml").read_text())
    assert all(reason for reason in triage["unaudited"].values())
