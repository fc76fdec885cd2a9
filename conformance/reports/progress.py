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
        self._start = clock()
        self._last = self._start
        self._shown = ""

    def __call__(self, what: str) -> None:
        """Show the progress, with the seconds since the start."""
        now = self._clock()
        if self._terminal:
            line = f"[{now - self._start:4.0f} s] {what}"[: self._width - 1]
            self._write(f"\r\x1b[2K{line}")
            self._shown = line
        elif now - self._last >= INTERVAL_SECONDS and what != self._shown:
            self._write(f"[{now - self._start:4.0f} s] {what}\n")
            self._shown, self._last = what, now

    def clear(self) -> None:
        """Remove the status line, so that the next text starts on a clean line."""
        if self._terminal and self._shown:
            self._write("\r\x1b[2K")
        self._shown = ""
