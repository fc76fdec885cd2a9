"""Servers on another host, by OpenSSH: their port is forwarded to loopback here, and they end with the connection.

The host has the suite in the Python that serves (scripts/bootstrap), and the checkpoints at the same paths as here.
"""

from __future__ import annotations

import functools
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conformance.errors import ObservationError, UsageError
from conformance.inside_vllm.plugin import SNAPSHOT_DIRECTORY
from conformance.serving.command import Launch
from conformance.serving.executors import HOST, Executor, Ports, free_port
from conformance.serving.installed import Installed, installed_here
from conformance.serving.json_subprocess import ask_subprocess

LEASH = "conformance.serving.ssh_watchdog"
THERE = "-there"
_SECONDS = 60.0
_COPY_SECONDS = 600.0  # for a capture, which may have some hundred megabytes
# No question is answered by hand, no other session is shared, and a dead peer is noticed.
_SSH = (
    *("ssh", "-S", "none", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10"),
    *("-o", "ExitOnForwardFailure=yes", "-o", "ServerAliveInterval=15", "-o", "LogLevel=ERROR"),
)


@dataclass(frozen=True)
class Host(Executor):
    """Another machine: ``name`` as OpenSSH takes it, with the path of the Python that serves there."""

    name: str
    python: str
    checkpoints: tuple[Path, ...] = ()
    grace: float = 0.0  # of a server there, from SIGTERM to SIGKILL

    same_machine = False
    same_python = False

    @property
    def inherited(self) -> Mapping[str, str]:
        """Nothing of this shell: what is set there by whoever logs in."""
        return {}

    def installed(self) -> Installed:
        return _installed(self)

    def ports(self) -> Ports:
        return free_port(), int(_look(self)["port"])

    def placed(self, launch: Launch, name: str, ports: Ports | None = None) -> Launch:
        """The same behind a connection. A server is held by a leash there, which ends it when the connection does."""
        settings = {name: value for name, value in launch.environment.items() if name != SNAPSHOT_DIRECTORY}
        there = ("env", *(f"{key}={value}" for key, value in settings.items()), self.python, *launch.command[1:])
        if ports is None:
            return Launch(self._by_ssh(there), os.environ)
        # A mark of its own: the client here has the name for one, and the host may be this very machine.
        leash = (self.python, "-m", LEASH, name + THERE, str(self.grace))
        forward = ("-L", f"{HOST}:{ports[0]}:{HOST}:{ports[1]}")
        return Launch(self._by_ssh((*leash, *there), *forward), os.environ, self._by_ssh(leash))

    def fetched(self, file: Path, folder: Path) -> Path:
        """A copy in the folder; ObservationError where the host has no such file."""
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f".{file.name}.part"  # so that no half of it is left in the evidence
        try:
            if problem := self._copy(file, part):
                raise ObservationError(f"{file} of {self.name} cannot be read: {problem}")
            return part.replace(folder / file.name)
        finally:
            part.unlink(missing_ok=True)

    def _copy(self, file: Path, copy: Path) -> str:
        """Why it is none, or nothing."""
        command = self._by_ssh(("cat", str(file)))
        with copy.open("wb") as sink:
            try:
                done = subprocess.run(
                    command, stdin=subprocess.DEVNULL, stdout=sink, stderr=subprocess.PIPE, timeout=_COPY_SECONDS
                )
            except subprocess.TimeoutExpired:
                return f"copying it took more than {_COPY_SECONDS:g} s"
        if done.returncode == 0:
            return ""
        return done.stderr.decode(errors="replace").strip() or f"exit code {done.returncode}"

    def _by_ssh(self, command: tuple[str, ...], *options: str) -> tuple[str, ...]:
        # "exec", so that the leash is a child of sshd and no shell stands between them.
        return (*_SSH, *options, "--", self.name, f"exec {shlex.join(command)}")


def host(name: str, python: str | None) -> Host:
    """The host of that name; UsageError for what can be none."""
    if name.startswith("-") or not name.isprintable() or any(character in name for character in " /"):
        raise UsageError(f"--ssh {name!r} is no host; write one as for ssh, such as user@host.")
    if not shutil.which("ssh"):
        raise UsageError(f"--ssh {name} needs OpenSSH's ssh, which is not on PATH; install it.")
    return Host(name, python or sys.executable)


@functools.cache
def _installed(place: Host) -> Installed:
    where = _named(place)
    try:
        found = _look(place)
    except ObservationError as error:
        raise UsageError(f"{error.sentence}; {error.log_tail.strip() or 'nothing was said'}") from None
    if found["vllm"] is None:
        raise UsageError(f"{where} has no vLLM; name the Python that has it, such as CHECKOUT/.venv/bin/python.")
    if found["suite"] != installed_here().suite:
        raise UsageError(
            f"{where} has suite {found['suite']}, and here is {installed_here().suite}; update the older one."
        )
    if absent := found["absent"]:
        raise UsageError(f"{place.name} has no {absent[0]}; put the checkpoint there, at the same path as here.")
    return Installed(found["vllm"], found["suite"], tuple(found["settings"]))


def _look(place: Host) -> dict[str, Any]:
    """What ``conformance.serving.installed`` says there; ObservationError where it says nothing."""
    command = (place.python, "-m", "conformance.serving.installed", *map(str, place.checkpoints))
    doing, failed = f"looking at {place.name}", f"{_named(place)} does not answer"
    return ask_subprocess(command, doing=doing, failed=failed, seconds=_SECONDS, place=place)


def _named(place: Host) -> str:
    return f"--ssh {place.name} --ssh-python {place.python}"
