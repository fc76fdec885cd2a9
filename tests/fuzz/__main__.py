"""``scripts/fuzz [INPUTS]``: feeds so many inputs (by default 1,000,000) to the readers, and keeps shrunk failures."""

from __future__ import annotations

import shutil
import sys
import time

from fuzz.inputs import run
from fuzz.readers import FOLDER, READERS

BATCH = 2000
TOLD_SECONDS = 60


def main(wanted: int) -> int:
    """Give every reader the same time, until so many inputs were read; the exit code is 1 if one failed."""
    fed, spent, failed = dict.fromkeys(READERS, 0), dict.fromkeys(READERS, 0.0), dict[str, str]()
    begin = told = time.monotonic()
    while sum(fed.values()) < wanted and (left := READERS.keys() - failed.keys()):
        name = min(left, key=lambda each: (spent[each], each))
        started = time.monotonic()
        count, problem = run(name, min(BATCH, max(1, wanted // len(READERS))))
        fed[name] += count
        spent[name] += time.monotonic() - started
        if problem:
            failed[name] = problem
            print(f"{name}: {problem[:500]}", flush=True)
        if time.monotonic() - told > TOLD_SECONDS:
            told = time.monotonic()
            print(f"{sum(fed.values())} inputs in {told - begin:.0f} s", flush=True)
    for name, count in fed.items():
        print(f"{name}: {count} inputs in {spent[name]:.0f} s, {'fails' if name in failed else 'no failure'}")
    print(f"{sum(fed.values())} inputs in {time.monotonic() - begin:.0f} s, {len(failed)} readers fail")
    shutil.rmtree(FOLDER)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000))
