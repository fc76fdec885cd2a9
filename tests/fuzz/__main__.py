"""``scripts/fuzz``: feeds edited samples to the readers of foreign text, counts them, and keeps shrunk failures.

The exit code is 1 if a reader failed. What was counted so far is on the disk whenever the program ends.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from fuzz.campaign import COUNTS, Campaign, feed_all
from fuzz.inputs import CORPUS


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the campaign that the arguments describe; print what it counted."""
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description="Feed edited samples to every reader.")
    parser.add_argument("inputs", nargs="?", type=int, default=1_000_000, help="end after so many inputs")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="end after this time")
    parser.add_argument("--processes", type=int, default=1, metavar="N", help="each feeds all readers in turn")
    parser.add_argument("--seed", type=int, help="by default another one each time")
    parser.add_argument("--into", type=Path, help=f"a folder for {COUNTS} and for the inputs on which a reader fails")
    options = parser.parse_args(arguments)
    seed = random.randrange(1 << 32) if options.seed is None else options.seed
    keep = options.into / CORPUS.name if options.into else CORPUS
    campaign = Campaign(options.inputs, options.seconds, options.processes, seed, keep)
    into = options.into / COUNTS if options.into else None
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the workers are ended
    counted = feed_all(campaign, into, tell=lambda line: print(line, flush=True))
    for name, count in counted.readers.items():
        print(f"{name}: {count.inputs} inputs in {count.seconds:.0f} s, {count.failures or 'no failure'}")
    print(counted.sentence())
    return 1 if counted.failed else 0


if __name__ == "__main__":
    sys.exit(main())
