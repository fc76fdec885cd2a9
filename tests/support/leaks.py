"""``scripts/leaks [RUNS]``: runs the main job at level smoke in a loop, and tells whether anything grows.

The first run fills caches and does not count. The exit code is 1 if something grows or a run fails. ``--into`` names a
JSON file that holds what was seen so far after each run.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path

import psutil

from support.leftovers import SHARED
from support.paths import ROOT

RUNS = 30
LOOK_SECONDS = 0.5
# How much the median of the last third may exceed that of the first: what a run allocates varies, files do not.
ALLOWED = {"memory_mib": 1.05, "descriptors": 1.05}
SETTLE_SECONDS = 5.0  # for a watchdog that ends after its run


@dataclass(frozen=True)
class Seen:
    """One run: the largest figures of the command while it ran, and what was there after its end."""

    memory_mib: float
    descriptors: int
    processes: int  # that bear the mark of the loop
    temporary: int  # files in the temporary folder
    cache: int
    shared: int  # files in /dev/shm


def look(command: Sequence[str], environment: Mapping[str, str], folder: Path) -> Seen:
    """Run the command to its end.

    Raises:
        RuntimeError: its exit code is not 0.
    """
    memory, descriptors = 0.0, 0
    with (folder / "said.txt").open("ab") as said:
        process = subprocess.Popen(command, env=environment, stdout=said, stderr=said, cwd=folder)
        running = psutil.Process(process.pid)
        while process.poll() is None:
            try:
                memory = max(memory, running.memory_info().rss / (1 << 20))
                descriptors = max(descriptors, running.num_fds())
            except psutil.Error:  # it has just ended
                break
            time.sleep(LOOK_SECONDS)
    if process.wait():
        raise RuntimeError(f"exit code {process.returncode}; see {folder / 'said.txt'}")
    deadline = time.monotonic() + SETTLE_SECONDS
    while (left := len(list(_marked(environment["LEAKS"])))) and time.monotonic() < deadline:
        time.sleep(LOOK_SECONDS)
    count = [sum(1 for _ in Path(environment[name]).rglob("*")) for name in ("TMPDIR", "XDG_CACHE_HOME")]
    return Seen(memory, descriptors, left, *count, len(list(SHARED.iterdir())))


def growth(runs: Sequence[Seen]) -> list[str]:
    """A sentence for each figure that grows from the first third of the runs to the last."""
    third, found = max(1, len(runs) // 3), []
    for name in (field.name for field in fields(Seen)):
        values = [getattr(run, name) for run in runs]
        begin, end = statistics.median(values[:third]), statistics.median(values[-third:])
        if end > begin * ALLOWED.get(name, 1.0):
            found.append(f"{name} grows from {begin:g} to {end:g}")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the loop; print each run, and what grows."""
    parser = argparse.ArgumentParser(prog="scripts/leaks", description="Run level smoke in a loop; tell what grows.")
    parser.add_argument("runs", nargs="?", type=int, default=RUNS, help="after the first one, which fills caches")
    parser.add_argument("--into", type=Path, help="a JSON file for what was seen")
    options = parser.parse_args(arguments)
    begun, runs = datetime.now(UTC).date().isoformat(), list[Seen]()
    with tempfile.TemporaryDirectory(prefix="leaks-") as name:
        folder = Path(name)
        environment = surroundings(folder)
        for number in range(options.runs + 1):
            evidence = f"--evidence={folder / f'run-{number}'}"
            seen = look((sys.executable, "-m", "conformance", "--level=smoke", evidence), environment, folder)
            print(f"{number}: {seen}", flush=True)
            runs += [seen] * bool(number)
            if options.into:
                write(options.into, begun, runs)
    found = growth(runs)
    print("\n".join(found) or f"nothing grows in {len(runs)} runs")
    return 1 if found else 0


def write(path: Path, begun: str, runs: Sequence[Seen]) -> None:
    """Write what was seen, and what grows, as JSON."""
    document = {"date": begun, "command": f"scripts/leaks {len(runs)}", "grows": growth(runs) if runs else []}
    path.write_text(json.dumps(document | {"runs": [asdict(run) for run in runs]}, indent=1) + "\n")


def surroundings(folder: Path) -> dict[str, str]:
    """An environment with a temporary folder and a cache of its own."""
    given = {"TMPDIR": folder / "t", "XDG_CACHE_HOME": folder / "cache"}
    for path in given.values():
        path.mkdir(exist_ok=True)
    return {**os.environ, **{name: str(path) for name, path in given.items()}, "LEAKS": str(folder)} | {
        "PYTHONPATH": str(ROOT)
    }


def _marked(mark: str) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        try:
            if process.environ().get("LEAKS") == mark and process.status() != psutil.STATUS_ZOMBIE:
                yield process
        except (psutil.Error, OSError):
            continue


if __name__ == "__main__":
    sys.exit(main())
