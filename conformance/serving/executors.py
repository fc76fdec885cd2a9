"""Executors: where servers, and other programs that need the same vLLM, run. The base class is this machine.

A launch is written as if it ran on this machine. Its executor adapts it so that it runs where it should.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path

from conformance.serving import remains
from conformance.serving.command import Launch, shell
from conformance.serving.installed import Installed, installed_here

HOST = "127.0.0.1"
Ports = tuple[int, int]  # on HOST: the port for requests on this machine, and the port that the server listens on


def free_port() -> int:
    """A free loopback port of this machine."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
    return port


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
