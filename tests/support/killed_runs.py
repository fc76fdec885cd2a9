"""Runs of the command that are killed; their servers answer, and their facts are made up."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from support import synthetic
from support.forked_runs import MODULE, ForkedRun
from support.paths import PYTHONPATH

PAIR = 'target = "./target"\ndraft = "./draft"\nk = 4\nquantisation = "nvfp4"\n'
SECONDS = 60
LATE = {"TMPDIR", "XDG_CACHE_HOME"}  # variables that nothing reads before the run; others need a Python of their own


def heed_signals() -> None:
    """Let a run heed Ctrl-C and a closed terminal also where the tests ignore them: in the background, under nohup."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@dataclass(frozen=True)
class Runner:
    """Runs the command in a folder of its own; ``environment`` is added to this process's."""

    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    before: tuple[str, ...] = ()  # the words of a program that runs the command

    @property
    def evidence(self) -> Path:
        return self.folder / "run"

    @property
    def pair(self) -> Path:
        """A pair of empty folders, under the embedded pair's name so that its floors apply."""
        for name in ("target", "draft"):
            (self.folder / name).mkdir(exist_ok=True)
        path = self.folder / "micro-26b-a4b-nvfp4.toml"
        path.write_text(PAIR)
        return path

    def begin(self, phase: str, *words: str) -> subprocess.Popen[str] | ForkedRun:
        """The command in a process group of its own."""
        facts = self.folder / "documents.json"  # made in this process, which imports transformers once
        facts.write_text(json.dumps(synthetic.healthy()))
        own = os.environ | {"PYTHONPATH": PYTHONPATH, "KILLED_IN": str(self.folder)} | dict(self.environment)
        words = (phase, str(self.folder), *words)
        if not self.before and self.environment.keys() <= LATE:
            return ForkedRun(self.folder, own, words)
        return subprocess.Popen(
            [*self.before, sys.executable, "-m", MODULE, *words],
            cwd=self.folder,
            env=own,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            preexec_fn=heed_signals,
        )

    def run(self, phase: str, *words: str) -> tuple[int, str]:
        """Exit code and output."""
        with self.begin(phase, *words) as process:
            said, _ = process.communicate(timeout=2 * SECONDS)
            return process.returncode, said

    def kill_in(self, phase: str, *words: str) -> None:
        """Kill the process group by SIGKILL as soon as the phase is reached."""
        with self.hanging_in(phase, *words):
            pass

    @contextmanager
    def hanging_in(self, phase: str, *words: str) -> Iterator[None]:
        """A run that hangs in the phase; at the end of the block the process group is killed by SIGKILL."""
        process = self.begin(phase, *words)
        deadline = time.monotonic() + SECONDS
        while not self._reached(phase):
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline, f"{phase} was not reached"
            time.sleep(0.05)
        try:
            yield
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()

    def left(self, seconds: float = 20.0) -> list[psutil.Process]:
        """The processes of these runs that are still there after this time."""
        deadline = time.monotonic() + seconds
        while (found := self._living()) and time.monotonic() < deadline:
            time.sleep(0.1)
        return found

    def made(self) -> list[str]:
        """The observations that all runs made, in their order."""
        return (self.folder / "made").read_text().split()

    def _reached(self, phase: str) -> bool:
        if phase.startswith("loading"):  # the server that never gets ready writes to its log
            log = self.evidence / "logs/mtp.log"
            return log.exists() and log.stat().st_size > 0
        return (self.folder / "reached").exists()

    def _living(self) -> list[psutil.Process]:
        return [process for process in psutil.process_iter() if self._is_ours(process)]

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            zombie = process.status() == psutil.STATUS_ZOMBIE
            return not zombie and process.environ().get("KILLED_IN") == str(self.folder)
        except (psutil.Error, OSError):
            return False
