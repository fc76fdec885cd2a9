"""Processes of their own that import vLLM, which changes whoever does it, and answer with a last line of JSON."""

from __future__ import annotations

import json
import secrets
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from conformance.errors import ObservationError
from conformance.serving import logs, processes
from conformance.serving.command import Launch
from conformance.serving.executors import HERE, Executor

QUIET = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}


def ask_subprocess(
    command: Sequence[str],
    question: Mapping[str, Any] | None = None,
    *,
    doing: str,
    failed: str,
    seconds: float = 300.0,
    place: Executor = HERE,
) -> dict[str, Any]:
    """What the process, run where ``place`` is, answers to the question, which it reads from its standard input.

    ObservationError in words of ``doing`` where it takes longer than ``seconds``, and of ``failed``, with its own
    error, where it gives no answer.
    """
    launch = Launch(tuple(command), {**place.inherited, **QUIET})
    launch = place.placed(launch, f"conformance-{secrets.token_hex(8)}")
    try:
        done = _run(launch, "" if question is None else json.dumps(question), seconds)
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired:
        raise ObservationError(f"{doing} took more than {seconds:.0f} s") from None
    except (IndexError, ValueError):
        reason = logs.telling_line(done.stderr) or f"exit code {done.returncode}"
        raise ObservationError(f"{failed}: {reason}", logs.tail(done.stderr)) from None
    return found


def _run(launch: Launch, asked: str, seconds: float) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            launch.command,
            input=asked,
            env=launch.environment,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except BaseException:
        if launch.end:  # what was killed is the client alone
            processes.run_end(launch.end)
        raise
