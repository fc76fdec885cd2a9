"""Modules that run together after one import; empty modules stand in for those that take long to import."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from conformance.errors import ObservationError
from conformance.serving.json_subprocess import TOGETHER, Together, ask_subprocess, read_answer

ECHO = "import json, sys\nprint('noise')\nprint(json.dumps({'asked': json.load(sys.stdin), 'words': sys.argv[1:]}))\n"


@pytest.fixture(autouse=True)
def _modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modules = {"transformers": "", "vllm": "", "echo": ECHO, "sleeper": "import time\ntime.sleep(60)\n"}
    for name, text in modules.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


def test_each_module_has_its_own_question_and_answer() -> None:
    together = Together({"echo one": 1, "echo two": 2, "no_such_module": None})
    assert read_answer(together.wait("echo two"), "it failed") == {"asked": 2, "words": ["two"]}
    assert read_answer(together.wait("echo one"), "it failed") == {"asked": 1, "words": ["one"]}
    with pytest.raises(ObservationError, match=r"it failed: .*No module named no_such_module"):
        read_answer(together.wait("no_such_module"), "it failed")


def test_a_module_that_takes_too_long_says_so() -> None:
    together = Together({"sleeper": None}, seconds=1)
    asked = [sys.executable, "-m", "sleeper"]
    with pytest.raises(ObservationError, match=r"^sleeping took more than 1 s$"):
        ask_subprocess(asked, doing="sleeping", failed="it failed", together=together)


def test_what_came_in_time_is_kept_when_another_module_is_late() -> None:
    together = Together({"sleeper": None, "echo": 1}, seconds=60)
    assert read_answer(together.wait("echo"), "it failed") == {"asked": 1, "words": []}
    together._stop_late()  # as the timer does; here at any speed of the machine
    with pytest.raises(subprocess.TimeoutExpired):
        together.wait("sleeper")
    assert read_answer(together.wait("echo"), "it failed") == {"asked": 1, "words": []}


def test_modules_end_with_the_process_that_asked() -> None:
    """However that process ends, the pipe closes."""
    command = [sys.executable, "-m", TOGETHER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, text=True, start_new_session=True) as process:
        print(json.dumps({"sleeper": "null"}), file=process.stdin, flush=True)
        (module,) = _children(process.pid)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(timeout=10) == -signal.SIGKILL
    assert psutil.wait_procs([module], timeout=10)[1] == []


def _children(pid: int) -> list[psutil.Process]:
    deadline = time.monotonic() + 20
    while not (found := psutil.Process(pid).children()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found
