"""The progress of a run: lines with a bar that rewrite themselves on a terminal, a plain line at times elsewhere."""

from __future__ import annotations

import io
import threading
import time
from collections import Counter
from collections.abc import Callable

from rich.console import Console
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from conformance.judging.verdict import Verdict
from conformance.reports.sanitize import printable

INTERVAL_SECONDS = 5.0  # between two lines in a log
FRESH_SECONDS = 15.0  # for which a terminal shows what a part of the run said last
MOST_LINES = 3
BAR_WIDTH = 30
STYLES = {Verdict.PASS: "green", Verdict.FAIL: "bold red", Verdict.ERROR: "bold red", Verdict.INCONCLUSIVE: "yellow"}


class Progress:
    """A status that is rewritten on a terminal; elsewhere a plain line, at most every few seconds."""

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
        self._lock = threading.RLock()  # servers load and observers ask at the same time
        self.left: Callable[[float], float | None] = lambda _: None  # seconds left after so many seconds, if known
        self._start = clock()
        self._last = self._start
        self._shown = ""
        self._lines = 0  # on the terminal now
        self._said: dict[str, tuple[float, str]] = {}  # by the part of the run that said it
        self._verdicts: Counter[Verdict] = Counter()
        self._asked = 0

    def __call__(self, what: str) -> None:
        """Show the progress, with the seconds since the start and, if known, the time left."""
        with self._lock:
            now = self._clock()
            if self._terminal:
                part = what.partition(" … ")[0].partition(",")[0].partition(":")[0]
                part = "judged" if part.partition(" ")[0] in list(Verdict) else part
                self._said.pop(part, None)
                self._said[part] = now, printable(what)  # the newest is the last
                self._draw(now)
            elif now - self._last >= INTERVAL_SECONDS and what != self._shown:
                self._write(f"{self._time(now)} {what}\n")
                self._shown, self._last = what, now

    def judged(self, verdict: Verdict, asked: int) -> None:
        """Count a check that was judged, of so many."""
        with self._lock:
            self._verdicts[verdict] += 1
            self._asked = asked

    def clear(self) -> None:
        """Remove the status, so that the next text starts on a clean line."""
        with self._lock:
            if self._lines:
                self._write(self._rewind())
            self._lines, self._shown = 0, ""

    def _draw(self, now: float) -> None:
        """Write the new status over the old one."""
        said = [line for when, line in self._said.values() if now - when <= FRESH_SECONDS][-MOST_LINES:]
        lines = [*self._head(now), *(line[: self._width - 1] for line in said)]
        self._write(self._rewind() + "\n".join(lines))
        self._lines = len(lines)

    def _rewind(self) -> str:
        """The codes that go to the first line of the status and delete from there."""
        return "\r" + f"\x1b[{self._lines - 1}A" * (self._lines > 1) + "\x1b[J" * (self._lines > 0)

    def _head(self, now: float) -> list[str]:
        """The bar with the times, and the checks by verdict once there are any."""
        out = io.StringIO()
        console = Console(file=out, width=self._width, force_terminal=True, highlight=False, emoji=False)
        line = Table.grid(padding=(0, 1))
        line.add_row(ProgressBar(total=1.0, completed=self._share(now), width=BAR_WIDTH), self._time(now))
        console.print(line)
        if self._verdicts:
            counts = [Text(f"{count} {verdict}", STYLES.get(verdict, "")) for verdict, count in self._verdicts.items()]
            judged = f"{self._verdicts.total()} of {self._asked} checks judged: "
            console.print(Text.assemble(judged, Text(", ").join(counts)))
        return out.getvalue().splitlines()

    def _share(self, now: float) -> float:
        """How much of the run is over: by time, if that is known, and else by the number of checks."""
        elapsed = now - self._start
        left = self.left(elapsed)
        if left is not None:
            return elapsed / (elapsed + left) if elapsed + left else 0.0
        return self._verdicts.total() / self._asked if self._asked else 0.0

    def _time(self, now: float) -> str:
        left = self.left(now - self._start)
        return f"[{now - self._start:4.0f} s{'' if left is None else f', about {duration(left)} left'}]"


def duration(seconds: float) -> str:
    """A duration for people: in minutes from 90 s on."""
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
