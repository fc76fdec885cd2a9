"""The list of all checks, for a terminal and as the table of docs/checks.md."""

from __future__ import annotations

from collections.abc import Sequence

from conformance.judging.check import Check

BEGIN, END = "<!-- checks: begin -->", "<!-- checks: end -->"


def as_text(checks: Sequence[Check]) -> str:
    """One line for each check, aligned."""
    return "".join(f"{check.id:<9} {check.level:<8} {check.claim}\n" for check in checks)


def as_markdown(checks: Sequence[Check]) -> str:
    """The table of docs/checks.md."""
    head = "| id | claim | level | severity | response | upstream |\n|---|---|---|---|---|---|\n"
    return head + "".join(map(_row, checks))


def _row(check: Check) -> str:
    response = f"[{check.response}](troubleshooting.md#{check.response})"
    return f"| {check.id} | {check.claim} | {check.level} | {check.severity} | {response} | {check.upstream} |\n"
