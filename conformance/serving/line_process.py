"""A process that imports vLLM, says that it is ready, and then answers each line with a line of JSON."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock, Timer
from typing import Any

from conformance.errors import ObservationError
from conformance.serving import logs, processes
from conformance.serving.command import Launch

_LOAD_SECONDS = 120.0  # to import vLLM


class LineProcess:
    """The running process; whoever started it ends it."""

    def __init__(self, launch: Launch, log: Path, failed: str) -> None:
        """Start it; it writes its errors into ``log``. The sentence of an error begins with ``failed``."""
        self._launch, self._log, self._failed = launch, log, failed
        self._lock, self._is_ready = Lock(), False
        pipe = subprocess.PIPE
        with log.open("wb") as sink:
            self._process = subprocess.Popen(
                launch.command, stdin=pipe, stdout=pipe, stderr=sink, env=launch.environment, text=True
            )

    def wait_until_ready(self) -> None:
        """Wait until it has imported vLLM.

        Raises:
            ObservationError: it has ended, or took too long.
        """
        with self._lock:
            if not self._is_ready:
                self._answer(_LOAD_SECONDS)
                self._is_ready = True

    def ask(self, line: str, seconds: float) -> dict[str, Any]:
        """The answer to a line.

        Raises:
            ObservationError: none comes within ``seconds``.
        """
        assert self._process.stdin is not None
        with suppress(BrokenPipeError, ValueError):  # the log says why it has ended
            print(line, file=self._process.stdin, flush=True)
        return self._answer(seconds)

    def end(self) -> None:
        """Kill it."""
        self._process.kill()
        with suppress(BrokenPipeError), self._process:  # waits, and closes the pipes
            pass
        if self._launch.end:
            processes.run_end(self._launch.end)

    def _answer(self, seconds: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        watchdog = Timer(seconds, self._process.kill)
        watchdog.start()
        try:
            line = "" if self._process.stdout.closed else self._process.stdout.readline()
        finally:
            watchdog.cancel()
        if not line:
            text = logs.read(self._log)
            reason = logs.telling_line(text) or f"no answer within {seconds:g} s"
            raise ObservationError(f"{self._failed}: {reason}", logs.tail(text))
        answer: dict[str, Any] = json.loads(line)
        return answer


class Beside:
    """Such processes by name, each started before it is needed, so that it imports vLLM while nothing is timed."""

    def __init__(self) -> None:
        self._running: dict[str, LineProcess] = {}

    def start(self, name: str, start: Callable[[], LineProcess]) -> None:
        """Start a process, if it does not run."""
        if name not in self._running:
            self._running[name] = start()

    @contextmanager
    def use(self, name: str, start: Callable[[], LineProcess]) -> Iterator[LineProcess]:
        """The process, ready, and started now if nobody has started it; it is ended at the end.

        Raises:
            ObservationError: it has ended, or is not ready in time.
        """
        self.start(name, start)
        try:
            self._running[name].wait_until_ready()
            yield self._running[name]
        finally:
            self._running.pop(name).end()

    def wait_until_ready(self) -> None:
        """Wait until all of them are ready; who uses one that has ended learns it there."""
        for process in tuple(self._running.values()):
            with suppress(ObservationError):
                process.wait_until_ready()

    def end(self) -> None:
        """End all of them."""
        for process in tuple(self._running.values()):
            process.end()
