"""Finds and ends every process of a server, also those that left its session or lost their parent."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence

import psutil

MARK = "CONFORMANCE_SERVER"  # environment variable that every process of a server inherits
_PARENT_DEATH_SIGNAL = 1  # linux/prctl.h
_KILL_SECONDS = 10.0
_CONNECT_SECONDS = 20.0  # until the command that ends a remote server has connected
_POLL_SECONDS = 0.05
_END_AGAIN_SECONDS = 0.5
_GONE = re.compile("no such container|no container with", re.IGNORECASE)  # in messages of docker and podman


def created(pid: int) -> float | None:
    """When the process was created, or None if there is none. Pid and creation time together identify a process."""
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.NoSuchProcess:
        return None


def end_with(parent: int) -> None:
    """Let the kernel kill this process as soon as its parent, which has this pid, has ended for any reason.

    Source: ``prctl(2)``, PR_SET_PDEATHSIG. The thread that started this process counts as its parent.
    """
    ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:  # it has ended before
        os.kill(os.getpid(), signal.SIGKILL)


def end_all(mark: str, leader: int | None, since: float | None, grace: float) -> list[int]:
    """Send SIGTERM to every process of a server, and SIGKILL after ``grace`` seconds; return the pids that survive.

    ``leader`` and ``since`` are the pid and the creation time of the server's first process, if it was started.
    """
    _signal_and_wait(members(mark, leader, since), grace)
    deadline = time.monotonic() + _KILL_SECONDS
    while (left := members(mark, leader, since)) and time.monotonic() < deadline:
        for process in left:
            _quietly(process.kill)
        _wait(left, 1.0)
    return [process.pid for process in left]


def run_end(command: Sequence[str], grace: float = 0.0) -> str:
    """Run the command that ends a server which is not a process of this machine, and repeat it until it succeeds.

    ``grace`` is the time that the command gives the server before SIGKILL. Returns why the server may still run, or an
    empty string if it has ended.
    """
    deadline = time.monotonic() + _CONNECT_SECONDS + grace + _KILL_SECONDS
    while True:
        try:
            left = max(1.0, deadline - time.monotonic())
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=left)
            if done.returncode == 0 or _GONE.search(done.stderr):
                return ""
            said = done.stderr.strip() or f"exit code {done.returncode}"
        except (OSError, subprocess.TimeoutExpired) as error:
            said = str(error)
        if time.monotonic() + _END_AGAIN_SECONDS > deadline:
            return f"{shlex.join(command)} did not end it: {said}"
        time.sleep(_END_AGAIN_SECONDS)


def members(mark: str, leader: int | None, since: float | None) -> list[psutil.Process]:
    """All living processes of a server: its session, its descendants, and every process with its mark."""
    trusted = leader is not None and created(leader) in (since, None)  # else the pid belongs to another process now
    found = set(_descendants(leader, since)) if leader is not None else set()
    for process in psutil.process_iter():
        if process.pid != os.getpid() and ((trusted and _session(process) == leader) or _mark(process) == mark):
            found.add(process)
    return [process for process in found if _alive(process)]


def resident_mib(every: Iterable[psutil.Process]) -> float:
    """The resident memory of the processes; shared pages count for each process, and a process that has ended as 0."""
    total = 0
    for process in every:
        with contextlib.suppress(psutil.Error):
            total += process.memory_info().rss
    return total / (1 << 20)


def cpu_seconds(every: Iterable[psutil.Process]) -> float:
    """The CPU time that the processes have used."""
    total = 0.0
    for process in every:
        with contextlib.suppress(psutil.Error):
            used = process.cpu_times()
            total += used.user + used.system
    return total


def machine_seconds() -> tuple[float, float]:
    """The CPU time of all cores since the machine's start, and the idle part of it."""
    times = psutil.cpu_times()._asdict()
    # The times "user" and "nice" include guest time.
    total = sum(seconds for name, seconds in times.items() if not name.startswith("guest"))
    return total, times["idle"] + times.get("iowait", 0.0)


def _descendants(leader: int, since: float | None) -> list[psutil.Process]:
    try:
        process = psutil.Process(leader)
        if process.create_time() != since:
            return []
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _session(process: psutil.Process) -> int | None:
    try:
        return os.getsid(process.pid)
    except OSError:
        return None


def _mark(process: psutil.Process) -> str | None:
    try:
        return process.environ().get(MARK)
    except (psutil.Error, OSError):
        return None


def _alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _signal_and_wait(processes: list[psutil.Process], seconds: float) -> None:
    for process in processes:
        _quietly(process.terminate)
    _wait(processes, seconds)


def _wait(processes: list[psutil.Process], seconds: float) -> None:
    """Wait until none of them lives. A zombie counts as dead: its parent has to reap it."""
    deadline = time.monotonic() + seconds
    while any(map(_alive, processes)) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)


def _quietly(action: Callable[[], None]) -> None:
    with contextlib.suppress(psutil.Error):
        action()
