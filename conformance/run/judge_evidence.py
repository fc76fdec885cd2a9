"""Judging inside this process: pytest over the package's own checks, and what its clerk found."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from pathlib import Path

import pytest

from conformance import PACKAGE
from conformance.errors import ObservationError
from conformance.judging.verdict import Judgement, Run
from conformance.run.recorder import Recorder

# They write into the working directory, or import what no check needs.
PLUGINS_OFF = ("-p", "no:cacheprovider", "-p", "no:hypothesispytest")

Found = tuple[Run, Judgement]


class Result:
    """A pytest plugin that keeps what the recorder found, past the end of the session."""

    def __init__(self) -> None:
        self.found: Found | None = None

    @pytest.hookimpl(tryfirst=True)
    def pytest_unconfigure(self, config: pytest.Config) -> None:
        """Take the result before pytest is gone."""
        recorder = config.pluginmanager.get_plugin("conformance-recorder")
        if isinstance(recorder, Recorder):
            self.found = recorder.result


def run_checks(words: Sequence[str]) -> tuple[int, Found | None]:
    """Judge as the words say; the exit code, and what was found if it came so far."""
    result = Result()
    code = int(pytest.main([str(PACKAGE), *PLUGINS_OFF, *words], plugins=[result]))
    return code, result.found


def judge_again(directory: Path) -> Found:
    """What recorded evidence comes to today; nothing is printed and nothing is written.

    Raises ObservationError with pytest's last words where it came to nothing.
    """
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        _, found = run_checks([f"--evidence={directory.absolute()}", "--recorded-only", "--no-reports"])
    if found is None:
        last = next((line for line in reversed(said.getvalue().splitlines()) if line.strip()), "nothing was said")
        raise ObservationError(f"{directory} cannot be judged: {last}")
    return found
