"""Judges evidence in this process: runs pytest on the package's checks and returns the recorder's result."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from conformance import PACKAGE
from conformance.errors import ObservationError
from conformance.judging.verdict import Judgement, Run
from conformance.reports.charts import Row
from conformance.run.recorder import Recorder

# Plugins that write into the working or the temporary directory, or import modules that no check needs.
PLUGINS_OFF = ("-p", "no:cacheprovider", "-p", "no:tmpdir", "-p", "no:hypothesispytest")

# Settings of the user's own pytest, which could leave checks out of a run.
SHELL = ("PYTEST_ADDOPTS", "PYTEST_PLUGINS", "PYTEST_DISABLE_PLUGIN_AUTOLOAD")

Found = tuple[Run, Judgement]


class Result:
    """A pytest plugin that keeps the recorder's result after the session has ended."""

    def __init__(self) -> None:
        self.found: Found | None = None
        self.figures: tuple[Row, ...] = ()

    @pytest.hookimpl(tryfirst=True)
    def pytest_unconfigure(self, config: pytest.Config) -> None:
        """Take the result before pytest removes its plugins."""
        recorder = config.pluginmanager.get_plugin("conformance-recorder")
        if isinstance(recorder, Recorder):
            self.found, self.figures = recorder.result, recorder.figures


def run_checks(words: Sequence[str]) -> tuple[int, Result]:
    """Run pytest with these arguments; return the exit code and the result."""
    result = Result()
    with _without(SHELL):
        code = int(pytest.main([str(PACKAGE), *PLUGINS_OFF, *words], plugins=[result]))
    return code, result


@contextlib.contextmanager
def _without(names: Sequence[str]) -> Iterator[None]:
    """The environment without these variables, which are put back."""
    kept = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)


def judge_again(directory: Path) -> Found:
    """Judge recorded evidence by today's checks and floors, without printing or writing anything.

    Raises:
        ObservationError: pytest gave no result; the sentence ends with pytest's last line.
    """
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        _, result = run_checks([f"--evidence={directory.absolute()}", "--recorded-only", "--no-reports"])
    if result.found is None:
        last = next((line for line in reversed(said.getvalue().splitlines()) if line.strip()), "pytest printed nothing")
        raise ObservationError(f"{directory} cannot be judged: {last}")
    return result.found
