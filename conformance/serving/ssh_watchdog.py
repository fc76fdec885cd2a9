"""``python -m conformance.serving.ssh_watchdog MARK GRACE [COMMAND …]``: runs a server at the far end of SSH.

The server runs as long as the connection. When sshd ends for any reason, this process gets another parent, and it ends
the server. Without a command, it ends the server that an earlier call with the same mark started.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

from conformance.inside_vllm.plugin import SNAPSHOT_DIRECTORY
from conformance.serving import processes

SURVIVED = 1
_LOOK_SECONDS = 0.2


def hold(mark: str, grace: float, command: Sequence[str]) -> int:
    """Run the command until it or the connection ends; return its exit code as a shell does, or SURVIVED."""
    connection = os.getppid()
    with tempfile.TemporaryDirectory(prefix="conformance-") as snapshots:
        environment = {**os.environ, processes.MARK: mark, SNAPSHOT_DIRECTORY: snapshots}
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL, env=environment, start_new_session=True)
        since = processes.created(server.pid)
        while server.poll() is None and os.getppid() == connection != 1:
            time.sleep(_LOOK_SECONDS)
        processes.end_all(mark, server.pid, since, grace)
        code = server.poll()
    if code is None:
        return SURVIVED
    return code if code >= 0 else 128 - code


def main(mark: str, grace: float, command: Sequence[str]) -> int:
    """The exit code: that of the command, or SURVIVED if a process survived."""
    if command:
        return hold(mark, grace, command)
    return SURVIVED if processes.end_all(mark, None, None, grace) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], float(sys.argv[2]), sys.argv[3:]))
