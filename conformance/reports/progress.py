"""The status line that shows progress while servers load and workloads run."""

from __future__ import annotations

import time
from collections.abc import Callable

INTERVAL_SECONDS = 5.0


class Progress:
    """A status line that is rewritten on a terminal; elsewhere a plain line, at most every few seconds."""

    def __init__(
        self,
        write: Callable[[str], None],
        *,
        terminal: bool,
        width: int = 100,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._write = write
        self._terminal = terminal
        self._width = width
        self._clock = clock
        self.left: Callable[[float], float | None] = lambda _: None  # seconds left after so many seconds, if known
        self._start = clock()
        self._last = self._start
        self._shown = ""

    def __call__(self, what: str) -> None:
        """Show the progress, with the seconds since the start and, if known, the time left."""
        now = self._clock()
        if self._terminal:
            line = f"{self._time(now)} {what}"[: self._width - 1]
            self._write(f"\r\x1b[2K{line}")
            self._shown = line
        elif now - self._last >= INTERVAL_SECONDS and what != self._shown:
            self._write(f"{self._time(now)} {what}\n")
            self._shown, self._last = what, now

    def _time(self, now: float) -> str:
        left = self.left(now - self._start)
        return f"[{now - self._start:4.0f} s{'' if left is None else f', about {duration(left)} left'}]"

    def clear(self) -> None:
        """Remove the status line, so that the next text starts on a clean line."""
        if self._terminal and self._shown:
            self._write("\r\x1b[2K")
        self._shown = ""


def duration(seconds: float) -> str:
    """A duration for people: in minutes from 90 s on."""
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
