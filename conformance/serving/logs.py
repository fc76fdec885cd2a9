"""Reads the log of a server: its last lines, and the line that says why the server died."""

from __future__ import annotations

import re
from pathlib import Path

from conformance.evidence.redaction import both_ends, redact_text

TAIL_LINES = 40
LARGEST = 1 << 25  # bytes that are read of a log: half from its beginning, half from its end
END = 1 << 16  # bytes that are read for its last lines
ENGINE_DIED = "EngineDeadError"  # after which the API server ends too
_MOST_LINES = 100_000  # that are remembered

# (EngineCore pid=71) ERROR 11-23 14:25:33 [core.py:133] message
_PREFIX = re.compile(r"^(\([^)]*pid=\d+\)\s*)*([A-Z]{4,8}\s+[\d-]+\s+[\d:.]+\s+)?(\[[^\]]+:\d+\]\s*)?")
_ERROR = re.compile(r"^(?:[\w.]*\.)?(\w*(?:Error|Exception|Interrupt|Exit)): (\S.*)$|^\S*: error: (\S.*)$")
_ERROR_MARKS = ("Error: ", "Exception: ", "Interrupt: ", "Exit: ", ": error: ")  # of which _ERROR needs one
_CLOCK = re.compile(r"\d{4}-\d\d-\d\d|\d\d:\d\d:\d\d(?:[.,]\d+)?")
# vLLM's front processes repeat that an inner process failed; the cause is further up in the log.
_ECHO = re.compile(r"see (root cause|stack trace)|for (the )?root cause", re.IGNORECASE)
_VALIDATION = re.compile(r"^\d+ validation errors? for ")


def read(path: Path, largest: int = LARGEST) -> str:
    """The log without secrets, and without its middle if it is larger; empty if there is no log."""
    try:
        with path.open("rb") as file:
            return redact_text(_text(both_ends(file, largest)))
    except FileNotFoundError:
        return ""


def _text(data: bytes) -> str:
    """The text with one line end for all: vLLM ends the lines of a table with CR LF, and progress bars use CR alone."""
    return data.decode("utf-8", errors="replace").replace("\r\n", "\n").replace("\r", "\n")


def read_end(path: Path) -> str:
    """The end of the log without secrets; empty if there is no log."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - END))
            return redact_text(_text(file.read(END)))
    except FileNotFoundError:
        return ""


class News:
    """Tells whether a log that grows has new lines; a line that only differs in its time is not new."""

    def __init__(self, path: Path) -> None:
        self._path, self._place, self._rest = path, 0, b""
        self._seen: set[str] = set()

    def any(self) -> bool:
        """Whether there is a line that was not there at the last call; lines in a flood are not all looked at."""
        with self._path.open("rb") as file:
            self._place = max(self._place, self._path.stat().st_size - END)
            file.seek(self._place)
            added = file.read(END)
        self._place += len(added)
        *whole, self._rest = re.split(rb"[\r\n]", self._rest + added)
        lines = {_CLOCK.sub("", bare(line.decode("utf-8", errors="replace"))) for line in whole} - {""}
        new = not lines <= self._seen
        self._seen = lines if len(self._seen) > _MOST_LINES else self._seen | lines
        return new


def bare(line: str) -> str:
    """A log line without vLLM's process, level, time and source."""
    return _PREFIX.sub("", line).strip()


def tail(text: str, lines: int = TAIL_LINES) -> str:
    """The last lines."""
    return "\n".join(text.splitlines()[-lines:])


def last_line(text: str) -> str:
    """The last line that is not empty, without its prefix."""
    return next((bare(line) for line in reversed(text.splitlines()) if bare(line)), "")


def telling_line(text: str) -> str | None:
    """The error that ended the server, such as "ValueError: …": the last error that does not only repeat another."""
    if not any(mark in text for mark in _ERROR_MARKS):
        return None
    lines, echo = text.splitlines(), None
    for number in reversed(range(len(lines))):
        if (found := _error(lines[number])) and not _ECHO.search(found.string):
            return _sentence(found, lines[number + 1 :])
        if found and not echo:
            echo = _sentence(found, lines[number + 1 :])
    return echo


def _error(line: str) -> re.Match[str] | None:
    """The match of a line that says an error."""
    return _ERROR.match(bare(line)) if any(mark in line for mark in _ERROR_MARKS) else None


def _sentence(found: re.Match[str], below: list[str]) -> str:
    kind, message, usage = found.groups()
    if usage:
        return f"error: {usage}"
    if _VALIDATION.match(message):  # pydantic puts the reason on the lines below
        message = next((line for line in map(bare, below) if line), message).split(" [type=")[0]
    return f"{kind}: {message}"


def lines_with(text: str, pattern: str) -> list[str]:
    """Every line that matches, without its prefix."""
    return [bare(line) for line in text.splitlines() if re.search(pattern, line)]
