"""Where the servers run, and whatever else needs the vLLM that serves: one interface, and this machine by itself.

A launch is written as if it ran here. Its place makes of it what has to be run here so that it runs there.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path

from conformance.serving.command import Launch
from conformance.serving.installed import Installed, installed_here

HOST = "127.0.0.1"
Ports = tuple[int, int]  # of HOST: the one by which a server is asked here, and the one that it listens on there


def free_port() -> int:
    """A loopback port of this machine that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
    return port


class Executor:
    """This machine, with the Python that runs the suite."""

    same_machine = True  # whether hardware, files and checkpoints are those of this machine
    same_python = True  # whether its vLLM is the one that is installed here

    @property
    def inherited(self) -> Mapping[str, str]:
        """What a process finds in its environment there, whoever starts it."""
        return os.environ

    def installed(self) -> Installed:
        """Its vLLM and its suite; raises UsageError where that cannot be seen."""
        return installed_here()

    def ports(self) -> Ports:
        """For a server that is about to be started: ports that nobody listens on at this moment."""
        port = free_port()
        return port, port

    def placed(self, launch: Launch, name: str, ports: Ports | None = None) -> Launch:
        """The launch as it is run here. ``name`` is unique; what has no ports is asked by its standard input."""
        del name, ports
        return launch

    def fetched(self, file: Path, folder: Path) -> Path:
        """A file that a server has written, on this machine: where it is, or brought into the folder."""
        del folder
        return file


HERE = Executor()
