"""``scripts/mutate``: runs mutmut, records what it found, and writes the pages."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from negative_controls.museum.exhibits import load_museum
from negative_controls.museum.page import PAGE, page
from negative_controls.museum.page import recorded as recorded_tour
from support import records
from support.paths import ROOT

from mutation.page import RECORD, SURVIVORS, left, recorded, survivors
from mutation.survivors import KILLED, UNCHECKED, Mutant, counts, mutants

MUTANTS = ROOT / "mutants"
PACKAGES = ROOT / ".venv" / "mutation"
LOCK = Path(__file__).with_name("lock.txt")


def install() -> None:
    """Install mutmut where only this program looks."""
    stamp = PACKAGES / LOCK.name
    if stamp.is_file() and stamp.read_bytes() == LOCK.read_bytes():
        return
    shutil.rmtree(PACKAGES, ignore_errors=True)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes", "--target", PACKAGES]
    subprocess.run([*command, "-r", LOCK], check=True)
    shutil.copy2(LOCK, stamp)


def run(names: list[str]) -> None:
    """Make the mutants that are missing, and try those that no earlier run has tried."""
    tests = MUTANTS / "tests"
    tests.mkdir(parents=True, exist_ok=True)  # Python never looks into a folder that was missing when it started
    paths = map(str, (PACKAGES, tests, MUTANTS))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-m", "mutmut", "run", *names], cwd=ROOT, env=environment, check=True)


def record() -> dict[str, Any]:
    """What mutmut has found.

    Raises:
        SystemExit: it has not tried every mutant.
    """
    every = list(mutants(MUTANTS))
    if unchecked := sum(each.status == UNCHECKED for each in every):
        sys.exit(f"mutate: {unchecked} of {len(every)} mutants are not tried yet; scripts/mutate goes on.")
    version = next(PACKAGES.glob("mutmut-*.dist-info")).stem.partition("-")[2]
    return {
        **records.here(),
        "mutmut": version,
        "seconds": round(sum(each.seconds for each in every)),
        "modules": {module: dict(row) for module, row in counts(every).items()},
        "left": [_row(each) for each in every if each.status != KILLED],
    }


def _row(mutant: Mutant) -> dict[str, Any]:
    return {name: value for name, value in asdict(mutant).items() if name != "seconds"}


def write_pages(found: Mapping[str, Any]) -> None:
    """Write the pages."""
    SURVIVORS.write_text(survivors(left(found)), encoding="utf-8")
    PAGE.write_text(page(load_museum(), recorded_tour()), encoding="utf-8")


def main(arguments: list[str]) -> int:
    """Run, record and write."""
    parser = argparse.ArgumentParser(prog="scripts/mutate", description="Change what judges, and see who notices.")
    parser.add_argument("name", nargs="*", help="only mutants of this name or pattern, tried again")
    parser.add_argument("--page", action="store_true", help="only write the pages from the record")
    options = parser.parse_args(arguments)
    if not options.page:
        install()
        run(options.name)
        records.write(RECORD, record())
    write_pages(recorded())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
