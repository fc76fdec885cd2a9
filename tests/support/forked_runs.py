"""Runs of the command, each forked from a process that has imported the suite already.

That saves the imports, which are most of what a run against a faux server costs.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from multiprocessing import forkserver
from pathlib import Path
from types import TracebackType

import pytest

from support.paths import PYTHONPATH

MODULE = "negative_controls.faux_servers.run"
WARM = multiprocessing.get_context("forkserver")
WARM.set_forkserver_preload([MODULE, "pytest", "openai.resources.chat.completions", __name__])


class ForkedRun:
    """A run in a session of its own, with those attributes and methods of ``subprocess.Popen`` that tests use."""

    def __init__(self, folder: Path, environment: Mapping[str, str], words: Sequence[str]) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PYTHONPATH", PYTHONPATH)
            forkserver.ensure_running()
        number, path = tempfile.mkstemp(prefix="output-", dir=folder)
        os.close(number)
        self._output = Path(path)
        self._process = WARM.Process(target=_run, args=(folder, self._output, dict(environment), list(words)))
        self._process.start()
        assert self._process.pid
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def communicate(self, timeout: float | None = None) -> tuple[str, None]:
        """What it has written, once it has ended."""
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(MODULE, timeout or 0.0)
        return self._output.read_text(encoding="utf-8", errors="replace"), None

    def __enter__(self) -> ForkedRun:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._process.join()


def _run(folder: Path, output: Path, environment: dict[str, str], words: list[str]) -> None:
    """Be that run, as a Python that was started for it."""
    from negative_controls.faux_servers import run

    os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None  # TMPDIR is another one
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which nohup ignores
    written = os.open(output, os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(written, stream)
    os.close(written)
    gc.freeze()  # to look for garbage in all that was imported takes a second
    sys.argv[0] = str(run.__file__)
    sys.exit(run.main(words[0], Path(words[1]), words[2:]))
