"""A campaign: processes that feed the readers in turn, and the counts of what they fed, kept as a file."""

from __future__ import annotations

import json
import multiprocessing
import os
import platform
import queue
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

from fuzz.inputs import run
from fuzz.readers import FOLDER, READERS

COUNTS = "counts.json"
BATCH = 200
TOLD_SECONDS = 60
WRITTEN_SECONDS = 2.0  # between two writes of the counts
GRACE_SECONDS = 20.0  # for the batches that are being fed at the end
SPAWN = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class Campaign:
    """What ends it, and its seed: the same seed and process number give the same inputs in the same order."""

    inputs: int
    seconds: float
    processes: int
    seed: int
    keep: Path  # the folder for inputs on which a reader fails


@dataclass(frozen=True)
class Batch:
    """What one process fed to one reader."""

    reader: str
    inputs: int
    seconds: float
    failure: str


@dataclass
class Count:
    """What one reader read."""

    inputs: int = 0
    seconds: float = 0.0
    failures: list[str] = field(default_factory=list)


@dataclass
class Counted:
    """What a campaign has fed so far."""

    campaign: Campaign
    readers: dict[str, Count]
    date: str
    begin: float

    @property
    def inputs(self) -> int:
        return sum(count.inputs for count in self.readers.values())

    @property
    def failed(self) -> list[str]:
        return [name for name, count in self.readers.items() if count.failures]

    @property
    def over(self) -> bool:
        return self.inputs >= self.campaign.inputs or time.monotonic() - self.begin > self.campaign.seconds

    def add(self, batch: Batch) -> None:
        count = self.readers[batch.reader]
        count.inputs += batch.inputs
        count.seconds += batch.seconds
        count.failures += [batch.failure] * bool(batch.failure)

    def sentence(self) -> str:
        failing = f"{len(self.failed)} of {len(self.readers)} readers fail"
        return f"{self.inputs} inputs in {time.monotonic() - self.begin:.0f} s, {failing}"

    def document(self) -> dict[str, Any]:
        processes, seed = self.campaign.processes, self.campaign.seed
        return {
            "date": self.date,
            "command": f"scripts/fuzz {self.inputs} --processes {processes} --seed {seed}",
            "python": platform.python_version(),
            "cores": os.cpu_count(),
            "seconds": round(time.monotonic() - self.begin),
            "inputs": self.inputs,
            "readers": {name: asdict(count) for name, count in self.readers.items()},
        }

    def write(self, path: Path) -> None:
        """Write the counts so that a kill at any moment leaves the last ones."""
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_suffix(".new")
        new.write_text(json.dumps(self.document(), indent=1) + "\n")
        new.replace(path)


def feed_all(campaign: Campaign, into: Path | None, tell: Callable[[str], None]) -> Counted:
    """Feed the readers by several processes until the campaign is over; write the counts ``into`` a file."""
    date = datetime.now(UTC).date().isoformat()
    counted = Counted(campaign, {name: Count() for name in READERS}, date, time.monotonic())
    batches: multiprocessing.Queue[Batch] = SPAWN.Queue()
    over = SPAWN.Event()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as scratch:
        os.environ |= {"TMPDIR": scratch, "HYPOTHESIS_STORAGE_DIRECTORY": scratch}  # of the workers
        arguments = [(campaign, number, batches, over) for number in range(campaign.processes)]
        workers = [SPAWN.Process(target=work, args=each, daemon=True) for each in arguments]
        try:
            for worker in workers:
                worker.start()
            collect(counted, batches, over, lambda: any(worker.is_alive() for worker in workers), into, tell)
        finally:
            for worker in workers:
                worker.kill()
            for worker in workers:
                worker.join()
            if into:
                counted.write(into)
    return counted


def collect(
    counted: Counted,
    batches: multiprocessing.Queue[Batch],
    over: Event,
    alive: Callable[[], bool],
    into: Path | None,
    tell: Callable[[str], None],
) -> None:
    """Count batches; at the end, wait for those that are being fed."""
    told = written = counted.begin
    ended = float("inf")
    while (now := time.monotonic()) < ended + GRACE_SECONDS:
        if counted.over and not over.is_set():
            over.set()
            ended = now
        try:
            batch = batches.get(timeout=1.0)
        except queue.Empty:
            if not alive():
                return
            continue
        counted.add(batch)
        if batch.failure:
            tell(f"{batch.reader}: {batch.failure[:500]}")
        if now - told > TOLD_SECONDS:
            told = now
            tell(counted.sentence())
        if into and now - written > WRITTEN_SECONDS:
            written = now
            counted.write(into)


def work(campaign: Campaign, number: int, batches: multiprocessing.Queue[Batch], over: Event) -> None:
    """Feed the reader that has had the least time, until the campaign is over or its process has died."""
    parent, turn = os.getppid(), 0
    names = [*READERS]
    first = number * len(names) // campaign.processes  # no two processes begin with the same reader
    spent = dict.fromkeys([*names[first:], *names[:first]], 0.0)
    while spent and not over.is_set() and os.getppid() == parent:
        name, begin = min(spent, key=lambda each: spent[each]), time.monotonic()
        seed = (campaign.seed * campaign.processes + number) << 32 | turn
        count, failure = run(name, min(BATCH, campaign.inputs), campaign.keep, seed)
        seconds = time.monotonic() - begin
        batches.put(Batch(name, count, seconds, failure))
        spent[name] += seconds
        turn += 1
        if failure:
            del spent[name]
    shutil.rmtree(FOLDER)
