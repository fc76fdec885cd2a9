"""``scripts/museum``: shows exhibits to the checks, one room after another, and records what they make of them.

What is recorded is not shown again, so an interrupted tour goes on where it stopped.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support import records
from support.paths import ROOT

from negative_controls.museum.exhibits import FILE, SEEN, dead_anchor, installed_vllm, load_museum
from negative_controls.museum.page import PAGE, RECORD, page, recorded

TESTS = ROOT / "tests" / "negative_controls"
ROOMS = {
    "build": ("test_museum.py",),
    "kernels": ("test_moe_oracle.py",),
    "graphs": ("test_cuda_graphs.py",),
    "parser": ("test_parsing.py",),
    "draft": ("test_museum_server.py",),
    "load": ("test_museum_load.py", "test_sampler_server.py"),
    "features": ("test_feature_server.py",),
    "chat": ("test_chat_server.py",),
    "calibration": ("test_sampler_server.py",),
}


class Guide:
    """A pytest plugin: keeps the tests of the chosen exhibits, and writes down what each shows."""

    def __init__(self, chosen: Collection[str]) -> None:
        self.chosen = chosen

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Leave out every other test."""
        kept = [item for item in items if _exhibit(item) in self.chosen]
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = kept

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Iterator[None]:
        """Record the call, or the error before it."""
        report: Any = yield
        if report.when == "call" or (report.when == "setup" and report.failed):
            found = dict(report.user_properties).get(SEEN)
            right = {"as_expected": report.passed, "seconds": round(report.duration, 1)}
            trouble = {} if report.passed else {"error": str(report.longreprtext)[-600:]}
            name = _exhibit(item)
            assert name
            record({name: (json.loads(found) if found else {}) | right | trouble | _here()})
        return report


def _exhibit(item: pytest.Item) -> str | None:
    found = item.get_closest_marker("exhibit")
    return str(found.args[0]) if found else None


def _here() -> dict[str, Any]:
    """When and on what an exhibit was shown, and how busy the machine was (load of the last 5 minutes)."""
    return {**records.here(), "vllm": installed_vllm(), "load": round(os.getloadavg()[1], 1)}


def record(rows: Mapping[str, Any], path: Path = RECORD) -> None:
    """Add rows to the record, or replace those of the same exhibits; several tours may write at once."""
    with _alone():
        every = recorded(path) | rows
        records.write(path, dict(sorted(every.items())))


@contextmanager
def _alone() -> Iterator[None]:
    with FILE.open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def tour(names: Collection[str]) -> int:
    """Show these exhibits, room by room; the exit code says whether all were as expected."""
    every, worst = load_museum().named(), 0
    for name in names:
        if moved := [why for anchor in every[name].anchors if (why := dead_anchor(anchor))]:
            record(
                {name: {"error": f"dead anchor: {'; '.join(moved)}", "as_expected": False, "seconds": 0.0} | _here()}
            )
            worst = 1
    living = [name for name in names if not any(map(dead_anchor, every[name].anchors))]
    for room, files in ROOMS.items():
        if chosen := [name for name in living if name.startswith(f"{room}/")]:
            print(f"museum: {room}, {len(chosen)} exhibits", flush=True)
            options = ["-q", "-p", "no:cacheprovider", "--no-header", *(str(TESTS / file) for file in files)]
            worst = max(worst, int(pytest.main(options, plugins=[Guide(chosen)])))
    return worst


def main(arguments: list[str]) -> int:
    """Show, list, or write the page."""
    every = load_museum().named()
    parser = argparse.ArgumentParser(prog="scripts/museum", description="Show exhibits to the checks and record it.")
    parser.add_argument("name", nargs="*", help="a room, or an exhibit as room/name; all without it")
    parser.add_argument("--again", action="store_true", help="show what is recorded too")
    parser.add_argument("--list", action="store_true", help="print the exhibits and what is recorded of them")
    parser.add_argument("--page", action="store_true", help="only write docs/detection.md from the record")
    options = parser.parse_args(arguments)
    unknown = [each for each in options.name if each not in every and each not in ROOMS]
    if unknown:
        parser.error(f"{', '.join(unknown)}: no such room or exhibit; scripts/museum --list prints them")
    chosen = [name for name in every if not options.name or {name, name.partition("/")[0]} & set(options.name)]
    done = {name for name, row in recorded().items() if row["as_expected"]}
    if options.list:
        print("".join(f"{name:<45} {'recorded' if name in done else 'not recorded'}\n" for name in chosen), end="")
        return 0
    code = 0 if options.page else tour([name for name in chosen if options.again or name not in done])
    PAGE.write_text(page(load_museum(), recorded()), encoding="utf-8")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
