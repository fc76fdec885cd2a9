"""The loop that looks for leaks sees each kind of leak."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from support.leaks import Seen, growth, look, surroundings, write

RUN = Seen(memory_mib=200, descriptors=40, processes=0, temporary=3, cache=9, shared=1)


def test_equal_runs_do_not_grow() -> None:
    assert growth([RUN] * 9) == []
    assert growth([replace(RUN, memory_mib=200 + number % 3) for number in range(9)]) == []


@pytest.mark.parametrize("name", ["memory_mib", "descriptors", "processes", "temporary", "cache", "shared"])
def test_whatever_grows_is_named(name: str) -> None:
    runs = [replace(RUN, **{name: getattr(RUN, name) + 5 * number}) for number in range(9)]
    (sentence,) = growth(runs)
    assert sentence.startswith(f"{name} grows from ")


LEAKY = """
import os, subprocess, sys, tempfile, time
held = [open(os.devnull) for _ in range(50)] + [bytearray(50_000_000)]
tempfile.mkstemp()
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(20)"], start_new_session=True)
time.sleep(1.5)
"""


def test_a_command_that_leaks_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("support.leaks.SETTLE_SECONDS", 0.0)
    monkeypatch.setattr("support.leaks.LOOK_SECONDS", 0.2)
    environment = surroundings(tmp_path)
    clean = look((sys.executable, "-c", "import time; time.sleep(1)"), environment, tmp_path)
    leaky = look((sys.executable, "-c", LEAKY), environment, tmp_path)
    assert (clean.processes, clean.temporary) == (0, 0)
    assert (leaky.processes, leaky.temporary) == (1, 1)
    assert leaky.descriptors >= clean.descriptors + 50
    assert leaky.memory_mib > clean.memory_mib + 40


def test_a_run_that_fails_ends_the_loop(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="exit code 3"):
        look((sys.executable, "-c", "raise SystemExit(3)"), surroundings(tmp_path), tmp_path)


def test_what_was_seen_is_kept_as_a_file(tmp_path: Path) -> None:
    path = tmp_path / "leaks.json"
    write(path, "2026-11-29", [RUN, replace(RUN, temporary=4)])
    kept = json.loads(path.read_text())
    assert kept["command"] == "scripts/leaks 2"
    assert kept["grows"] == ["temporary grows from 3 to 4"]
    assert [run["temporary"] for run in kept["runs"]] == [3, 4]
