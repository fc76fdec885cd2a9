"""The list of all checks, for a terminal and as the table of docs/checks.md."""

from __future__ import annotations

from collections.abc import Sequence

from conformance.judging.check import Check
from conformance.judging.oracle import MEANINGS

BEGIN, END = "<!-- checks: begin -->", "<!-- checks: end -->"


def as_text(checks: Sequence[Check]) -> str:
    """One line for each check, aligned."""
    return "".join(f"{check.id:<9} {check.level:<8} {check.claim}\n" for check in checks)


def as_markdown(checks: Sequence[Check]) -> str:
    """The tables of docs/checks.md: the checks, the shares of the oracles, and why some checks have no better one."""
    head = "| id | claim | level | severity | response | oracle | upstream |\n|---|---|---|---|---|---|---|\n"
    return head + "".join(map(_row, checks)) + _shares(checks) + _reasons(checks)


def _row(check: Check) -> str:
    response = f"[{check.response}](troubleshooting.md#{check.response})"
    words = (check.id, check.claim, check.level, check.severity, response, check.oracle, check.upstream)
    return f"| {' | '.join(words)} |\n"


def _shares(checks: Sequence[Check]) -> str:
    """How many checks have each oracle."""
    rows = "\n## Oracles\n\nWhere the expected value of each check comes from, the strongest first.\n\n"
    rows += "| oracle | where the expected value comes from | checks | share |\n|---|---|---|---|\n"
    for oracle, meaning in MEANINGS.items():
        count = sum(check.oracle is oracle for check in checks)
        rows += f"| {oracle} | {meaning} | {count} | {count / len(checks):.0%} |\n"
    return rows


def _reasons(checks: Sequence[Check]) -> str:
    """Why the self-consistent checks are no better."""
    rows = "\nWhy a check is only self-consistent:\n\n| id | reason |\n|---|---|\n"
    return rows + "".join(f"| {check.id} | {check.no_better_oracle} |\n" for check in checks if check.no_better_oracle)
