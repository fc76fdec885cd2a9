"""A run of the whole command against a faux server, in surroundings of its own, while something goes wrong."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import psutil
from negative_controls.faux_servers import launch
from negative_controls.faux_servers.mischief import shared_name

from conformance import FIXTURES
from conformance.commands import main as command
from conformance.evidence.folder import verify
from support.faults import Fault
from support.killed_runs import Runner
from support.leftovers import Surroundings

BOUNDS = {"load_seconds": 20.0, "silence_seconds": 10.0, "request_seconds": 5.0, "stop_seconds": 0.5}
SLACK_SECONDS = 30  # from the bound to the kill of a run that would never end


@dataclass(frozen=True)
class Ended:
    """How a run ended."""

    code: int
    said: str
    seconds: float
    verdicts: Mapping[str, str]  # by check; from the report, or empty without one


@dataclass
class Scene:
    """Runs the command in ``folder``; ``expect`` holds an end against the fault's declaration."""

    fault: Fault
    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    plan: dict[str, Any] = field(default_factory=dict)
    bounds: dict[str, float] = field(default_factory=dict)
    before: tuple[str, ...] = ()  # the words of a program that runs the command
    expected = False

    @cached_property
    def temporary(self) -> Path:
        """A short path, because vLLM's sockets lie there."""
        return Path(tempfile.mkdtemp(prefix="fault-"))

    @property
    def surroundings(self) -> Surroundings:
        return Surroundings(self.temporary, shared_name(str(self.folder)))

    @cached_property
    def runner(self) -> Runner:
        here = {"TMPDIR": str(self.temporary), "XDG_CACHE_HOME": str(self.folder / "cache")}
        return Runner(self.folder, here | self.environment, self.before)

    @property
    def evidence(self) -> Path:
        return self.folder / "run"

    def serve(self, *arguments: str, script: str = "good", real: Sequence[str] = ()) -> None:
        """Let the server with MTP be this one, and make these observations."""
        given = ("--k", "4", *arguments) if script == "good" else arguments
        self.plan |= {"command": launch(script, *given).command, "real": list(real)}

    def serve_shell(self, script: str) -> None:
        """Let the server with MTP be a shell script."""
        self.plan |= {"command": ["sh", "-c", script, "sh"]}

    def words(self, *more: str, level: str = "smoke") -> list[str]:
        """The arguments of a run that records."""
        hardware = self.folder / "cpu.toml"
        head, _, tail = (FIXTURES / "hardware/cpu.toml").read_text().partition("[bounds]\n")
        bounds = "".join(f"{name} = {value}\n" for name, value in (BOUNDS | self.bounds).items())
        rest = tail.partition("\n\n")[2]
        hardware.write_text(f"{head}[bounds]\n{bounds}\n{rest}")
        (self.folder / "plan.json").write_text(json.dumps(self.plan))
        options = [f"--pair={self.runner.pair}", f"--hardware={hardware}", f"--level={level}"]
        return [*options, f"--evidence={self.evidence}", *more]

    def run(self, *more: str, level: str = "smoke", phase: str = "nowhere") -> Ended:
        """Run the command to its end, or kill it when it exceeds the fault's bound by far."""
        return self.end(self.runner.begin(phase, *self.words(*more, level=level)))

    def call(self, *words: str | Path) -> Ended:
        """Run the command in this process, with the arguments as they are."""
        begin, said = time.monotonic(), io.StringIO()
        with redirect_stdout(said), redirect_stderr(said):
            try:
                code = command.main([str(word) for word in words])
            except SystemExit as exit:  # of argparse
                code = int(exit.code or 0)
        return Ended(code, said.getvalue(), time.monotonic() - begin, {})

    def end(self, process: subprocess.Popen[str], act: Callable[[], None] = lambda: None) -> Ended:
        """Wait for the end of a command that was begun, after ``act``."""
        begin = time.monotonic()
        with process:
            try:
                act()
                said, _ = process.communicate(timeout=self.fault.seconds + SLACK_SECONDS)
            except BaseException:
                os.killpg(process.pid, 9)
                raise
        return Ended(process.returncode, said, time.monotonic() - begin, self.verdicts())

    def verdicts(self) -> dict[str, str]:
        """The verdict of each check, as the journal keeps it."""
        journal = self.evidence / "verdicts.jsonl"
        rows = map(json.loads, journal.read_text().splitlines()) if journal.exists() else ()
        return {row["id"]: row["verdict"] for row in rows if "verdict" in row and "id" in row}

    def expect(self, ended: Ended, check: str = "") -> None:
        """Require the declared exit code, verdict, sentence and bound, readable evidence and no leftovers."""
        self.expected = True
        fault, said = self.fault, ended.said
        (self.folder / "said.txt").write_text(said)
        assert not any(line.startswith("Traceback") for line in said.splitlines())  # a server's log is indented
        assert ended.code == fault.code, said[-2000:]
        assert fault.matches(said), said[-4000:]
        assert ended.seconds <= fault.seconds
        if check:
            assert ended.verdicts.get(check) == fault.verdict
        if ended.verdicts and (self.evidence / "manifest.json").exists():  # this run recorded them
            verify(self.evidence)
        left = self.surroundings.left(self.processes)
        assert not left, left

    def clear(self) -> None:
        """Remove what the run has left."""
        for process in self.runner.left(0.0):
            process.kill()
        shutil.rmtree(self.temporary)
        for path in self.surroundings.segments():
            path.unlink(missing_ok=True)

    def processes(self) -> list[str]:
        """What the run has left running; a process that ends meanwhile is not left."""
        found = []
        for process in self.runner.left(0.0):
            with suppress(psutil.NoSuchProcess):  # a zombie too
                found.append(f"the process {process.pid}: {' '.join(process.cmdline())}")
        return found
