"""``python -m conformance.serving.ssh_watchdog MARK GRACE [COMMAND …]``: a server on the far end of an SSH connection.

It runs while the connection does: when sshd is gone, in whatever way, this process has another parent, and ends the
server. Without a command, what an earlier call with that mark has started is ended.
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
    """Run the command until it ends or the connection does; returns its exit code, as a shell would, or SURVIVED."""
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
    """The exit code: the command's own, or SURVIVED where something did."""
    if command:
        return hold(mark, grace, command)
    return SURVIVED if processes.end_all(mark, None, None, grace) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], float(sys.argv[2]), sys.argv[3:]))
