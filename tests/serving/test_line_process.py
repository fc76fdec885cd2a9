"""Processes that answer lines; small scripts stand in for those that import vLLM."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from negative_controls.faux_servers import answering

from conformance.errors import ObservationError
from conformance.serving.command import Launch
from conformance.serving.line_process import Beside, LineProcess

ECHO = "import json,sys; print('{}', flush=True); [print(json.dumps({'f': x}), flush=True) for x in sys.stdin]"
SLEEPER = "print('{}', flush=True); import time; time.sleep(600)"


def start(script: str, tmp_path: Path) -> LineProcess:
    return LineProcess(Launch(answering(script), {}), tmp_path / "log", "it measured nothing")


def test_it_answers_each_line(tmp_path: Path) -> None:
    with Beside().use("echo", lambda: start(ECHO, tmp_path)) as running:
        assert running.ask("one", 10) == {"f": "one\n"}
        assert running.ask("two", 10) == {"f": "two\n"}


@pytest.mark.parametrize(
    ("script", "sentence"), [("import no_such_module", "ModuleNotFoundError: No"), ("raise SystemExit", "no answer")]
)
def test_one_that_does_not_start_is_an_error(script: str, sentence: str, tmp_path: Path) -> None:
    beside = Beside()
    beside.start("it", lambda: start(script, tmp_path))
    beside.wait_until_ready()  # who times something else does not learn of it
    with (
        pytest.raises(ObservationError, match=f"^it measured nothing: {sentence}"),
        beside.use("it", lambda: start(script, tmp_path)),
    ):
        pass


def test_one_that_hangs_is_ended(tmp_path: Path) -> None:
    with (
        pytest.raises(ObservationError, match=r"measured nothing: no answer within 0\.2 s"),
        Beside().use("it", lambda: start(SLEEPER, tmp_path)) as running,
    ):
        running.ask("x", 0.2)


def test_one_that_was_started_ahead_is_used_and_ended(tmp_path: Path) -> None:
    beside, made = Beside(), list[LineProcess]()

    def make() -> LineProcess:
        made.append(start(ECHO, tmp_path))
        return made[-1]

    beside.start("it", make)
    with beside.use("it", make) as running:
        assert made == [running]
    with pytest.raises(ObservationError, match="no answer"):
        made[0].ask("x", 5)


def test_nobody_waits_for_one_that_was_ended(tmp_path: Path) -> None:
    beside, begin = Beside(), time.monotonic()
    beside.start("it", lambda: start("import time; time.sleep(600)", tmp_path))
    beside.end()
    beside.wait_until_ready()
    assert time.monotonic() - begin < 60
