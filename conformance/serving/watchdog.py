"""``python -m conformance.serving.watchdog FOLDER GRACE``: ends a session's servers when the session's owner has ended.

The owner holds the other end of standard input. That end closes when the owner ends for any reason, also by SIGKILL.
This module imports little, because every session starts a watchdog and waits for it at the end.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from conformance.evidence.redaction import redact_file
from conformance.serving import processes, remains


def watch(folder: Path, grace: float) -> subprocess.Popen[bytes]:
    """Start a process that waits until this one ends for any reason, and then ends the recorded servers."""
    command = [sys.executable, "-m", __name__, str(folder.absolute()), str(grace)]
    silent = subprocess.DEVNULL
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=silent, stderr=silent, start_new_session=True)


def end_recorded_servers(folder: Path, grace: float) -> list[str]:
    """End every server that the folder records, and delete its record; records of failed starts stay.

    This also removes secrets from the servers' logs, since no other process may be left to do it. Returns a phrase for
    each server or process that survived.
    """
    survivors: list[str] = []
    for path in sorted(folder.glob("*.json")):
        server = (load(path) or {}).get("server")
        if server is not None:
            left = processes.end_all(server["model"], server["pid"], server["created"], grace)
            survivors += [f"process {pid}" for pid in left]
            if server["end"] and (problem := processes.run_end(server["end"], grace)):
                survivors.append(f"a server, since {problem}")
            remains.remove(server["folder"], server["created"])
            redact_file(Path(server["log"]))
            path.unlink(missing_ok=True)
    return survivors


def load(path: Path) -> dict[str, Any] | None:
    """A record, or None if there is none."""
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return record


if __name__ == "__main__":
    sys.stdin.buffer.read()
    end_recorded_servers(Path(sys.argv[1]), float(sys.argv[2]))
