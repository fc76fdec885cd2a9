"""A campaign counts what its processes feed, ends in time, and leaves its counts when it is killed."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import time
from multiprocessing.synchronize import Event
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from support.paths import PYTHONPATH, ROOT

from fuzz import campaign
from fuzz.campaign import Batch, Campaign, Count, Counted, collect


def counted(inputs: int = 10, seconds: float = 60.0) -> Counted:
    planned = Campaign(inputs, seconds, 2, 7, Path("kept"))
    return Counted(planned, {"log": Count(), "JSON": Count()}, "2026-11-29", time.monotonic())


def fed(*batches: Batch) -> Any:
    """A queue that holds these batches."""
    made: queue.Queue[Batch] = queue.Queue()
    for batch in batches:
        made.put(batch)
    return made


class Switch:
    """An event in one process."""

    on = False

    def set(self) -> None:
        self.on = True

    def is_set(self) -> bool:
        return self.on


def test_batches_are_counted_by_reader_and_failures_are_told() -> None:
    so_far, told, over = counted(), list[str](), Switch()
    batches = fed(Batch("log", 3, 1.0, ""), Batch("JSON", 4, 0.5, "KeyError: x"), Batch("log", 5, 1.0, ""))
    collect(so_far, batches, cast(Event, over), lambda: False, None, told.append)
    assert so_far.readers == {"log": Count(8, 2.0, []), "JSON": Count(4, 0.5, ["KeyError: x"])}
    assert (so_far.inputs, so_far.failed, over.on) == (12, ["JSON"], True)
    assert told == ["JSON: KeyError: x"]
    assert so_far.sentence().endswith("1 of 2 readers fail")


def test_workers_that_never_end_are_waited_for_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(campaign, "GRACE_SECONDS", 0.5)
    begin, over = time.monotonic(), Switch()
    collect(counted(seconds=0.0), fed(), cast(Event, over), lambda: True, None, list[str]().append)
    assert over.on
    assert time.monotonic() - begin < 10


def test_a_worker_ends_when_its_parent_has_died(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parents = iter([1, 1, 2])  # at the start, before the first batch, and after its parent's death
    monkeypatch.setattr(campaign, "os", SimpleNamespace(getppid=lambda: next(parents)))
    monkeypatch.setattr(campaign, "FOLDER", tmp_path / "scratch")
    monkeypatch.setattr(campaign, "run", lambda _name, count, *_: (count, ""))
    (tmp_path / "scratch").mkdir()
    batches = fed()
    campaign.work(Campaign(10, 60.0, 1, 7, tmp_path), 0, batches, cast(Event, Switch()))
    assert batches.qsize() == 1
    assert not (tmp_path / "scratch").exists()


@pytest.mark.faults
def test_a_killed_campaign_leaves_its_counts_and_nothing_else(tmp_path: Path) -> None:
    temporary = tmp_path / "t"
    temporary.mkdir()
    into = tmp_path / "result"
    process = subprocess.Popen(
        [sys.executable, "-m", "fuzz", "1000000", "--processes=2", "--seed=7", f"--into={into}"],
        env=os.environ | {"PYTHONPATH": PYTHONPATH, "TMPDIR": str(temporary)},
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while not (into / "counts.json").exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 143
    document = json.loads((into / "counts.json").read_text())
    assert document["inputs"] == sum(count["inputs"] for count in document["readers"].values()) > 0
    assert list(temporary.iterdir()) == []
