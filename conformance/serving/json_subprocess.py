"""Subprocesses that print JSON on their last line.

They import vLLM, which changes the importing process, so the suite does not do it in its own process.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from threading import Thread, Timer
from typing import Any

from conformance.errors import ObservationError
from conformance.formats.json_files import parse_json
from conformance.serving import logs, processes
from conformance.serving.command import Launch, neutral
from conformance.serving.executors import HERE, Executor

QUIET = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
TOGETHER = "conformance.inside_vllm.run_together"
Done = subprocess.CompletedProcess[str]


def ask_subprocess(
    command: Sequence[str],
    question: Mapping[str, Any] | Sequence[Any] | None = None,
    *,
    doing: str,
    failed: str,
    seconds: float = 300.0,
    executor: Executor = HERE,
    together: Together | None = None,
) -> dict[str, Any]:
    """Run the command by the executor, write the question to its standard input, and return the JSON it prints.

    If ``together`` already runs the module of the command, this waits for what it prints.

    Raises:
        ObservationError: it takes longer than ``seconds`` (the sentence begins with ``doing``), or prints no JSON (the
            sentence begins with ``failed`` and ends with the command's own error).
    """
    module = " ".join(command[2:]) if tuple(command[:2]) == (sys.executable, "-m") else ""
    try:
        if together is not None and module in together:
            done = together.wait(module)
        else:
            done = _run(_launch(command, executor), "" if question is None else json.dumps(question), seconds)
    except subprocess.TimeoutExpired as late:
        raise ObservationError(f"{doing} took more than {late.timeout:.0f} s") from None
    return read_answer(done, failed)


def read_answer(done: Done, failed: str) -> dict[str, Any]:
    """The JSON on the last line of what a process has printed.

    Raises:
        ObservationError: it printed no JSON; the sentence begins with ``failed``.
    """
    try:
        found: dict[str, Any] = parse_json(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        reason = logs.telling_line(done.stderr) or f"exit code {done.returncode}"
        raise ObservationError(f"{failed}: {reason}", logs.tail(done.stderr)) from None
    return found


class Together:
    """Modules of the serving Python that run at the same time after one import of vLLM; see ``run_together``."""

    def __init__(self, questions: Mapping[str, Any], executor: Executor = HERE, seconds: float = 600.0) -> None:
        """Start the process (see ``run_together``).

        ``questions`` has the standard input of each module as JSON, the most urgent one first.
        """
        self._done: dict[str, Future[Done]] = {module: Future() for module in questions}
        self._launch, self._seconds = _launch((sys.executable, "-m", TOGETHER), executor), seconds
        self._process: subprocess.Popen[str] | None = None
        self._late = False
        asked = json.dumps({module: json.dumps(question) for module, question in questions.items()})
        Thread(target=self._run, args=(asked,), daemon=True, name="together").start()

    def __contains__(self, module: str) -> bool:
        return module in self._done

    def wait(self, module: str) -> Done:
        """What a module printed, as soon as it has ended; if the process has ended too early, what that printed.

        Raises:
            subprocess.TimeoutExpired: the module was stopped, because it had run for too long.
        """
        return self._done[module].result()

    def stop(self) -> None:
        """End all modules that still run."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            if self._launch.end:  # only the client was killed
                processes.run_end(self._launch.end)

    def _stop_late(self) -> None:
        self._late = True
        self.stop()

    def _run(self, asked: str) -> None:
        """Keep what each module prints; a module that printed nothing gets the code and the errors of the process."""
        try:
            code, errors = self._print(asked)
        except OSError as error:
            code, errors = 127, str(error)
        for module, future in self._done.items():
            if not future.done() and self._late:
                future.set_exception(subprocess.TimeoutExpired(module, self._seconds))
            elif not future.done():
                future.set_result(subprocess.CompletedProcess(module, code, "", errors))

    def _print(self, asked: str) -> tuple[int, str]:
        with (
            tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors,
            subprocess.Popen(
                self._launch.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=self._launch.environment,
                start_new_session=True,  # so that ``stop`` reaches the modules too
            ) as process,
        ):
            assert process.stdin
            assert process.stdout
            self._process = process
            timer = Timer(self._seconds, self._stop_late)
            timer.start()
            with suppress(BrokenPipeError):
                print(asked, file=process.stdin, flush=True)  # it stays open: the modules end when it closes
            for line in process.stdout:
                self._keep(line)
            timer.cancel()
            code = process.wait()
            errors.seek(0)
            return code, errors.read()

    def _keep(self, line: str) -> None:
        try:
            row = parse_json(line)
            future = self._done[row["module"]]
        except (ValueError, KeyError, TypeError):  # printed by an import
            return
        future.set_result(subprocess.CompletedProcess(row["module"], row["code"], row["stdout"], row["stderr"]))


def _launch(command: Sequence[str], executor: Executor) -> Launch:
    launch = Launch(tuple(command), {**neutral(executor.inherited), **QUIET})
    return executor.adapt_launch(launch, f"conformance-{secrets.token_hex(8)}")


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
