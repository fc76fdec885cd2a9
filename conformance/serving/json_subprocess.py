"""Subprocesses that print JSON on their last line.

They import vLLM, which changes the importing process, so the suite does not do it in its own process.
"""

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
    executor: Executor = HERE,
) -> dict[str, Any]:
    """Run the command by the executor, write the question to its standard input, and return the JSON it prints.

    Raises:
        ObservationError: it takes longer than ``seconds`` (the sentence begins with ``doing``), or prints no JSON (the
            sentence begins with ``failed`` and ends with the command's own error).
    """
    launch = Launch(tuple(command), {**executor.inherited, **QUIET})
    launch = executor.adapt_launch(launch, f"conformance-{secrets.token_hex(8)}")
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
        if launch.end:  # only the client was killed
            processes.run_end(launch.end)
        raise
