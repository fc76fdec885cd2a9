"""Servers on another host, by OpenSSH: their port is forwarded to loopback here, and they end with the connection.

The host must have the suite in the Python that serves (scripts/bootstrap), and the checkpoints at the same paths as
this machine.
"""

from __future__ import annotations

import functools
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
from conformance.serving.command import Launch, shell
from conformance.serving.executors import HOST, Executor, Ports, free_port
from conformance.serving.installed import Installed, installed_here
from conformance.serving.json_subprocess import ask_subprocess

SSH_WATCHDOG = "conformance.serving.ssh_watchdog"
THERE = "-there"
_SECONDS = 60.0
_COPY_SECONDS = 600.0  # for a capture, which may be several hundred megabytes
# ssh must not ask questions or share a session, and must notice that the host is dead.
_SSH = (
    *("ssh", "-S", "none", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10"),
    *("-o", "ExitOnForwardFailure=yes", "-o", "ServerAliveInterval=15", "-o", "LogLevel=ERROR"),
)


@dataclass(frozen=True)
class Host(Executor):
    """Another machine: its ``name`` for OpenSSH, and the path of the Python that serves there."""

    name: str
    python: str
    checkpoints: tuple[Path, ...] = ()
    grace: float = 0.0  # seconds from SIGTERM to SIGKILL for a server there

    same_machine = False
    same_python = False

    @property
    def inherited(self) -> Mapping[str, str]:
        """Nothing from this shell: a login on the host brings its own environment."""
        return {}

    def private_folder(self, environment: Mapping[str, str]) -> None:
        """The server has the temporary folder of where it runs."""
        del environment

    def installed(self) -> Installed:
        return _installed(self)

    def ports(self) -> Ports:
        return free_port(), int(_look(self)["port"])

    def adapt_launch(self, launch: Launch, name: str, ports: Ports | None = None) -> Launch:
        """The launch of an ssh client. On the host, a watchdog runs the server and ends it when the connection ends."""
        settings = {name: value for name, value in launch.environment.items() if name != SNAPSHOT_DIRECTORY}
        there = ("env", *(f"{key}={value}" for key, value in settings.items()), self.python, *launch.command[1:])
        if ports is None:
            return Launch(self._by_ssh(there), shell())
        # The watchdog needs another mark than the client here, whose mark is the name: the host may be this machine.
        watchdog = (self.python, "-m", SSH_WATCHDOG, name + THERE, str(self.grace))
        forward = ("-L", f"{HOST}:{ports[0]}:{HOST}:{ports[1]}")
        return Launch(self._by_ssh((*watchdog, *there), *forward), shell(), self._by_ssh(watchdog))

    def fetch(self, file: Path, folder: Path) -> Path:
        """A copy of the host's file in the folder.

        Raises:
            ObservationError: the host has no such file, or copying it takes too long.
        """
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f".{file.name}.part"  # so that no incomplete file stays in the evidence
        try:
            if problem := self._copy(file, part):
                raise ObservationError(f"{file} on {self.name} cannot be read: {problem}")
            return part.replace(folder / file.name)
        finally:
            part.unlink(missing_ok=True)

    def _copy(self, file: Path, copy: Path) -> str:
        """Copy the host's file; the reason why that failed, or an empty string."""
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
        # With "exec", the watchdog is a child of sshd, without a shell between them.
        return (*_SSH, *options, "--", self.name, f"exec {shlex.join(command)}")


def host(name: str, python: str | None) -> Host:
    """The host with this name.

    Raises:
        UsageError: the name cannot be one of a host, or there is no ssh program on this machine.
    """
    if name.startswith("-") or not name.isprintable() or any(character in name for character in " /"):
        raise UsageError(f"--ssh {name!r} is not a host; write one as ssh takes it, such as user@host.")
    if not shutil.which("ssh"):
        raise UsageError(f"--ssh {name} needs OpenSSH's ssh, which is not on PATH; install it.")
    return Host(name, python or sys.executable)


@functools.cache
def _installed(executor: Host) -> Installed:
    where = _options(executor)
    try:
        found = _look(executor)
    except ObservationError as error:
        raise UsageError(f"{error.sentence}; {error.log_tail.strip() or 'it printed no error'}") from None
    if found["vllm"] is None:
        raise UsageError(f"{where} has no vLLM; name the Python that has it, such as CHECKOUT/.venv/bin/python.")
    if found["suite"] != installed_here().suite:
        raise UsageError(
            f"{where} has suite {found['suite']}, but this machine has {installed_here().suite}; update the older one."
        )
    if absent := found["absent"]:
        raise UsageError(f"{executor.name} has no {absent[0]}; put the checkpoint there, at the same path as here.")
    return Installed(found["vllm"], found["suite"], tuple(found["settings"]))


def _look(executor: Host) -> dict[str, Any]:
    """What ``conformance.serving.installed`` prints on the host.

    Raises:
        ObservationError: it prints nothing.
    """
    command = (executor.python, "-m", "conformance.serving.installed", *map(str, executor.checkpoints))
    doing, failed = f"inspecting --ssh {executor.name}", f"{_options(executor)} does not answer"
    return ask_subprocess(command, doing=doing, failed=failed, seconds=_SECONDS, executor=executor)


def _options(executor: Host) -> str:
    return f"--ssh {executor.name} --ssh-python {executor.python}"
