"""Lets ``pytest --pyargs conformance`` know the suite's options in any folder; does nothing in other runs of pytest."""

from __future__ import annotations

import pytest

PLUGIN = "conformance.run.pytest_plugin"


def pytest_load_initial_conftests(early_config: pytest.Config, args: list[str]) -> None:
    """Load the suite's plugin where its package is named; pytest reads the conftest.py there too late for options."""
    named = any(word.partition("::")[0].partition(".")[0] == "conformance" for word in args)
    if "--pyargs" in args and named:
        early_config.pluginmanager.import_plugin(PLUGIN)
