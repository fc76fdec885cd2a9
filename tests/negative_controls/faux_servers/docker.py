"""A stand-in for docker: it runs the given commands without a container, and records them.

The folder FAUX_DOCKER is its daemon. ``calls`` has the words of each call, one JSON array in each line. Each file of
``running`` is a container, with the id of its process. As with real docker, the process belongs to the daemon and not
to the client. It has its own session, gets only the variables that were named, and survives a client that is killed.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

IMAGE = {"Id": "sha256:1d", "RepoDigests": ["faux/vllm@sha256:d19e57"]}
VALUED = ("--name", "--gpus", "--device", "--volume", "--env", "--entrypoint")


def main(words: list[str]) -> int:
    daemon = Path(os.environ["FAUX_DOCKER"])
    (daemon / "running").mkdir(exist_ok=True)
    with (daemon / "calls").open("a") as calls:
        calls.write(json.dumps(words) + "\n")
    if (daemon / "broken").exists():
        print((daemon / "broken").read_text(), file=sys.stderr)
        return 1
    if words[:2] == ["image", "inspect"]:
        return inspect(words[2])
    if words[:2] == ["rm", "--force"]:
        return remove(daemon / "running" / words[2])
    assert words[0] == "run"
    return run(daemon, words[1:])


def inspect(name: str) -> int:
    if name.startswith("absent"):
        print(f"Error response from daemon: No such image: {name}", file=sys.stderr)
        return 1
    print(json.dumps([IMAGE]))
    return 0


def remove(container: Path) -> int:
    if not container.exists():
        print(f"Error response from daemon: No such container: {container.name}", file=sys.stderr)
        return 1
    with suppress(ProcessLookupError):  # a container that has ended is removed too
        os.killpg(int(container.read_text()), signal.SIGKILL)
    container.unlink(missing_ok=True)
    return 0


def run(daemon: Path, words: list[str]) -> int:
    """Run the entrypoint with its arguments; this process is the client and waits in the foreground."""
    given: dict[str, str] = {}
    environment = {"PATH": os.environ["PATH"]}
    while words[0].startswith("--"):
        word = words.pop(0)
        value = words.pop(0) if word in VALUED else ""
        given[word] = value
        if word == "--env":
            name, said, told = value.partition("=")
            environment[name] = told if said else os.environ[name]
    if "PYTHONPATH" in environment:  # nothing is mounted, so the suite is at its own path
        environment["PYTHONPATH"] = os.environ["FAUX_SUITE"]
    container = daemon / "running" / given["--name"]
    command = [sys.executable if given["--entrypoint"] == "python3" else given["--entrypoint"], *words[1:]]
    stdin = None if "--interactive" in given else subprocess.DEVNULL
    process = subprocess.Popen(command, env=environment, stdin=stdin, start_new_session=True)
    whole = daemon / f".{container.name}"
    whole.write_text(str(process.pid))
    whole.replace(container)
    if (daemon / "deaf").exists():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    while (code := process.poll()) is None:
        time.sleep(0.02)
    container.unlink(missing_ok=True)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
