"""Faux servers that somebody starts by hand, outside of the suite. They must still run afterwards."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from collections.abc import Iterator
from typing import Protocol

from conformance.serving.executors import free_port
from negative_controls.faux_servers import launch

SECONDS = 20


class Serve(Protocol):
    """Starts a server with these arguments and returns its address."""

    def __call__(self, *arguments: str, k: int = 4) -> str: ...


@contextlib.contextmanager
def started_by_hand() -> Iterator[Serve]:
    """A function that starts servers. They must run until the end of the block, which kills them."""
    started: list[subprocess.Popen[bytes]] = []

    def serve(*arguments: str, k: int = 4) -> str:
        port, good = free_port(), launch("good", "--k", str(k), *arguments)
        own = ["--port", str(port), "--served-model-name", "theirs"]
        started.append(subprocess.Popen([*good.command, *own], stdout=subprocess.DEVNULL, env=dict(good.environment)))
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.05)
        return f"http://127.0.0.1:{port}"

    try:
        yield serve
        for process in started:
            assert process.poll() is None, "it was ended by somebody else"
    finally:
        for process in started:
            process.kill()
            process.wait()
