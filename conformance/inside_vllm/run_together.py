"""``python -m conformance.inside_vllm.run_together``: runs several modules at once after one import of vLLM.

Standard input is a line of JSON: the standard input of each module, by its name, which arguments may follow. When
standard input closes, nobody waits any longer, and every module is killed. A line of JSON is printed for each module as
soon as it ends: ``module`` (the same words), ``code`` (its exit code), ``stdout`` and ``stderr``. Every module runs in
a process of its own, forked from this one, because each changes vLLM in its own way. The first one has the priority of
a server; the others take the time that it leaves.
"""

from __future__ import annotations

import importlib
import io
import json
import multiprocessing
import os
import runpy
import signal
import sys
import tempfile
from contextlib import suppress
from multiprocessing.connection import wait
from pathlib import Path
from threading import Thread
from typing import Any

# What the modules import first. If an import fails here, each module fails in it again and says so.
SLOW_IMPORTS = ("transformers", "vllm", "vllm.model_executor.models.gemma4_mtp")
NICENESS = 19  # of all modules but the first
STREAMS = ("stdin", "stdout", "stderr")


def main() -> None:
    """Run every module in standard input."""
    asked = json.loads(sys.stdin.readline())
    Thread(target=_end_with_asker, daemon=True).start()
    path = list(sys.path)
    for name in SLOW_IMPORTS:
        with suppress(Exception):
            importlib.import_module(name)
    sys.path[:] = path  # setuptools adds its own copies of other packages
    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as folder:
        running: dict[Any, tuple[str, Any, list[Path]]] = {}
        for number, (module, text) in enumerate(asked.items()):
            files = [Path(folder) / f"{number}-{stream}" for stream in STREAMS[1:]]
            child = context.Process(target=_run, args=(module, text, files, NICENESS if number else 0))
            child.start()
            running[child.sentinel] = (module, child, files)
        while running:
            for sentinel in wait(list(running)):
                module, child, files = running.pop(sentinel)
                child.join()
                said = [file.read_text(encoding="utf-8", errors="replace") if file.exists() else "" for file in files]
                row = {"module": module, "code": child.exitcode, "stdout": said[0], "stderr": said[1]}
                print(json.dumps(row), flush=True)


def _end_with_asker() -> None:
    """Kill the process group when standard input closes."""
    while os.read(0, 1024):  # not by sys.stdin, whose lock a fork would copy
        pass
    os.killpg(0, signal.SIGKILL)


def _run(module: str, text: str, files: list[Path], niceness: int) -> None:
    """Run a module as ``python -m`` does, with its output in files, also what compiled code prints."""
    for descriptor, file in enumerate(files, start=1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT, 0o600), descriptor)
    sys.stdin = io.StringIO(text)
    sys.argv = words = module.split()
    os.nice(niceness)
    runpy.run_module(words[0], run_name="__main__")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
