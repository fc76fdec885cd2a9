"""Spoils the process of a run in one way, as a machine does."""

from __future__ import annotations

import errno
import fcntl
import os
import pwd
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TextIO

from conformance import test_checkpoint
from conformance.evidence.journal import Journal
from conformance.serving import executors


def nothing(_folder: Path) -> None:
    """Leave the process as it is."""


def port_taken(_folder: Path) -> None:
    """Somebody listens on the port between its choice and the start of the server, and says nothing."""
    listening = socket.create_server((executors.HOST, 0))
    vars(executors)["free_port"] = lambda: listening.getsockname()[1]
    threading.Thread(target=listening.accept, daemon=True).start()


def no_ports(_folder: Path) -> None:
    """Every port is taken."""
    vars(executors)["free_port"] = _raising(OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE)))


def _full(*names: str) -> Callable[[Path], None]:
    """The disk is full when a file is written whose path contains one of the names."""

    def spoil(_folder: Path) -> None:
        write = Path.write_text

        def unless_full(path: Path, text: str, **how: Any) -> int:
            if any(name in str(path) for name in names):
                write(path, text[: len(text) // 2], **how)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            return write(path, text, **how)

        vars_of: Any = Path
        vars_of.write_text = unless_full

    return spoil


full_at_header = _full("header.json")
full_at_record = _full("servers/.mtp")
full_at_observation = _full("observations/.draft_load")
full_at_junit = _full("junit.xml")
full_at_manifest = _full("manifest.json")
full_at_reports = _full(".report.")


def full_at_verdicts(_folder: Path) -> None:
    """The disk is full from the tenth verdict on."""
    begin = Journal.__init__

    def begin_with_little(journal: Journal, path: Path) -> None:
        begin(journal, path)
        journal._file = Little(journal._file, lines=10)  # type: ignore[assignment]

    vars_of: Any = Journal
    vars_of.__init__ = begin_with_little


class Little:
    """A file on a disk that has room for so many lines."""

    def __init__(self, file: TextIO, lines: int) -> None:
        self._file, self._lines = file, lines

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def write(self, text: str) -> int:
        self._lines -= 1
        if self._lines < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self._file.write(text)


def no_flock(_folder: Path) -> None:
    """A file system without flock, such as some network mounts."""
    vars(fcntl)["flock"] = _raising(OSError(errno.ENOSYS, os.strerror(errno.ENOSYS)))


def no_lock_manager(_folder: Path) -> None:
    """A network mount whose lock manager does not answer."""
    vars(fcntl)["flock"] = _raising(OSError(errno.ENOLCK, os.strerror(errno.ENOLCK)))


def no_passwd_entry(_folder: Path) -> None:
    """A container's user whose number stands in no list of users."""
    vars(pwd)["getpwuid"] = _raising(KeyError("getpwuid(): uid not found: 54321"))
    for name in ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME"):
        os.environ.pop(name, None)


def clock_jumps(_folder: Path) -> None:
    """The wall clock goes back by a day two seconds after the start, as with a first NTP answer."""
    wall, begin = time.time, time.monotonic()
    vars(time)["time"] = lambda: wall() - 86_400 * (time.monotonic() > begin + 2)


def an_id_twice(_folder: Path) -> None:
    """Somebody has copied a check and left it its id."""
    vars(test_checkpoint)["test_again"] = test_checkpoint.test_draft_tensors


def _raising(error: Exception) -> Callable[..., NoReturn]:
    def fail(*_: object) -> NoReturn:
        raise error

    return fail
