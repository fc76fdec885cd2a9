"""Work in forked processes, and the time of it all."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any


class Forked:
    """What a function returns in a process that is forked with the parser."""

    def __init__(self, work: Callable[[], Any]) -> None:
        context = multiprocessing.get_context("fork")
        self._pipe, other = context.Pipe(duplex=False)
        self._process = context.Process(target=_send_result, args=(work, other))
        self._process.start()
        other.close()

    def result(self) -> Any:
        """The result, as soon as the process has ended."""
        found = self._pipe.recv()
        self._process.join()  # from here on its CPU seconds count
        return found


def _send_result(work: Callable[[], Any], pipe: Connection) -> None:
    pipe.send(work())


class Stopwatch:
    """Wall and CPU seconds of this process and of those that have ended below it, since it was made."""

    def __init__(self) -> None:
        self._begin, self._cpu = time.perf_counter(), _cpu_seconds()

    def as_json(self) -> dict[str, float]:
        """Both, for the observation."""
        wall, cpu = time.perf_counter() - self._begin, _cpu_seconds() - self._cpu
        return {"seconds": round(wall, 1), "cpu_seconds": round(cpu, 1)}


def _cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
