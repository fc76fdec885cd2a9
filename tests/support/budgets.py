"""Names the tests that take longer than their budget, at the end of the report."""

from __future__ import annotations

import tomllib
from collections import defaultdict
from pathlib import Path

import pytest

BUDGETS: dict[str, float] = tomllib.loads(Path(__file__).with_name("budgets.toml").read_text())["seconds"]


class Budgets:
    """A pytest plugin; a test's time is that of its setup, call and teardown."""

    def __init__(self) -> None:
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._budgets: dict[str, float] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._seconds[report.nodeid] += report.duration
        self._budgets[report.nodeid] = next(
            (seconds for mark, seconds in BUDGETS.items() if mark in report.keywords), BUDGETS["any"]
        )

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        over = {id: spent for id, spent in self._seconds.items() if spent > self._budgets[id]}
        if over:
            terminalreporter.section(f"{len(over)} of {len(self._seconds)} tests over their budget")
        for id, spent in sorted(over.items(), key=lambda each: -each[1]):
            terminalreporter.write_line(f"{spent:.0f} s, budget {self._budgets[id]:g} s: {id}")
