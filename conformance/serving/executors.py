"""Executors: where servers, and other programs that need the same vLLM, run. The base class is this machine.

A launch is written as if it ran on this machine. Its executor adapts it so that it runs where it should.
"""

from __future__ import annotations

import errno
import random
import socket
from collections.abc import Mapping
from pathlib import Path

from conformance.serving import remains
from conformance.serving.command import Launch, shell
from conformance.serving.installed import Installed, installed_here

HOST = "127.0.0.1"
Ports = tuple[int, int]  # on HOST: the port for requests on this machine, and the port that the server listens on
_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")  # ports that the kernel gives to any process
_LOWEST_PORT = 10_000  # well-known services have lower ones
_TRIES = 100


def free_port() -> int:
    """A free loopback port of this machine.

    If possible, the kernel gives it to no other process: it is below the range of ephemeral ports. A port from this
    range can be the local end of somebody's connection before the server listens on it.

    Raises:
        OSError: no port is free.
    """
    reserved = range(_LOWEST_PORT, _first_ephemeral_port())
    for port in random.SystemRandom().sample(reserved, min(_TRIES, len(reserved))):
        try:
            return _bind(port)
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise
    return _bind(0)


def _first_ephemeral_port() -> int:
    """The lowest port that the kernel gives by itself; 0 if this kernel does not say."""
    try:
        return int(_EPHEMERAL.read_text().split()[0])
    except OSError:
        return 0


def _bind(port: int) -> int:
    """The port that was free; any one if it is 0."""
    with socket.socket() as probe:
        probe.bind((HOST, port))
        bound: int = probe.getsockname()[1]
    return bound


class Executor:
    """This machine, with the Python that runs the suite."""

    same_machine = True  # whether servers use the hardware, files and checkpoints of this machine
    same_python = True  # whether servers use the vLLM that is installed here

    @property
    def inherited(self) -> Mapping[str, str]:
        """The environment that a process inherits there."""
        return shell()

    def installed(self) -> Installed:
        """The vLLM and the suite that are installed there.

        Raises:
            UsageError: they cannot be determined, or they do not suit this run.
        """
        return installed_here()

    def ports(self) -> Ports:
        """Free ports for a server that is about to start."""
        port = free_port()
        return port, port

    def adapt_launch(self, launch: Launch, name: str, ports: Ports | None = None) -> Launch:
        """The launch that runs here so that the command runs there.

        ``name`` is unique. Without ports the command is no server: it reads its standard input.
        """
        del name, ports
        return launch

    def private_folder(self, environment: Mapping[str, str]) -> Path | None:
        """The path of a temporary folder that a server here gets for itself; None if it runs elsewhere."""
        return remains.name_folder(environment)

    def fetch(self, file: Path, folder: Path) -> Path:
        """A local path to a file that a server wrote; a file on another machine is copied into the folder.

        Raises:
            ObservationError: the file cannot be copied.
        """
        del folder
        return file


HERE = Executor()
