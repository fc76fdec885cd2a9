"""``scripts/draw_answers``: so many drawn answers for the installed vLLM's parser, in several processes."""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import hypothesis

from conformance import FIXTURES
from conformance.errors import UsageError
from conformance.inside_vllm.adapters import vllm_version
from conformance.inside_vllm.parsing import Gemma4
from conformance.observers.parsers import build_request
from conformance.profile.profile import load_profile
from conformance.workload.parser_cases import REGRESSIONS
from drawn_answers.batch import BATCH, PROPERTIES, Batch, Drawer, end_with
from drawn_answers.keep import keep
from drawn_answers.tally import Tally, read_found, summarize

WRITTEN_SECONDS, TOLD_SECONDS = 10, 60
DEATHS = 5  # of a process, after each of which the others begin anew
_drawer: Drawer  # of the parent; forked processes have it too


def main(arguments: list[str]) -> int:
    """Draw until there are enough answers or the time is over; the exit code is 1 if an answer could not be judged."""
    options = _options(arguments)
    try:
        return _do(options)
    except UsageError as error:
        print(f"draw_answers: {error}", file=sys.stderr)
        return 2


def _do(options: argparse.Namespace) -> int:
    global _drawer
    if options.summary:
        print(json.dumps(summarize(options.folder), indent=1))
        return 0
    found = read_found(options.folder) if options.keep else []
    question = build_request(load_profile("cpu", "micro-26b-a4b-nvfp4", "static"))
    _drawer = Drawer(Gemma4(Path(question["tokenizer"])), question["template"])
    if options.keep:
        print("\n".join(keep(FIXTURES / "prompts" / REGRESSIONS, found, _drawer.answers)))
        return 0
    about = {"vllm": vllm_version(), "hypothesis": hypothesis.__version__, "seed": options.seed, "batch": BATCH}
    tally = Tally(options.folder, about)
    Run(tally, options).until_done()
    failed = sum(each.failed for each in tally.properties.values())
    print(f"{tally.judged} answers judged, {len(tally.digests)} distinct, {failed} could not be judged", flush=True)
    return 1 if failed else 0


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/draw_answers", description=__doc__)
    parser.add_argument("folder", type=Path, help="the folder of the result, which a later run continues")
    parser.add_argument("--answers", type=int, default=1_000_000, help="so many judged answers (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="at most so long (default: no limit)")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="default: one for each core")
    parser.add_argument("--seed", type=int, default=0, help="other answers (default: %(default)s)")
    parser.add_argument("--keep", action="store_true", help="draw none; keep the shortest input of each kind")
    parser.add_argument("--summary", action="store_true", help="draw none; print the result without its inputs")
    return parser.parse_args(arguments)


class Run:
    """Deals batches to processes, and writes the result again and again."""

    def __init__(self, tally: Tally, options: argparse.Namespace) -> None:
        self._tally, self._options = tally, options
        self._begin = self._written = self._told = time.monotonic()
        self._stopped = False
        for each in (signal.SIGTERM, signal.SIGINT):
            signal.signal(each, self._stop)

    def _stop(self, *_: object) -> None:
        self._stopped = True

    def _is_over(self) -> bool:
        late = time.monotonic() - self._begin > self._options.seconds
        return self._stopped or late or self._tally.judged >= self._options.answers

    def until_done(self) -> None:
        """Draw until it is over. If a process dies, its batch is given up and the others begin anew."""
        batches, deaths = self._batches(), 0
        while not self._is_over() and deaths <= DEATHS:
            executor = ProcessPoolExecutor(
                self._options.processes, multiprocessing.get_context("fork"), end_with, (os.getpid(),)
            )
            running: dict[Future[Batch], tuple[str, int]] = {}
            try:
                self._deal(executor, running, batches)
            except BrokenProcessPool:
                deaths += 1
                print("a process died; the others begin anew", flush=True)
                for property, number in running.values():
                    problem = {"given": None, "error": f"a process died during batch {number} or one beside it"}
                    self._tally.add(Batch(property, number, failures=[problem]))
            finally:
                processes = list(executor._processes.values())
                executor.shutdown(wait=False, cancel_futures=True)
                for process in processes:
                    process.kill()
                self._tally.write(time.monotonic() - self._begin)

    def _batches(self) -> Iterator[tuple[str, int]]:
        """Every batch that is not done, of all properties in turn."""
        for number in itertools.count():
            for name in PROPERTIES:
                if number not in self._tally.properties[name].done:
                    yield name, number

    def _deal(
        self,
        executor: ProcessPoolExecutor,
        running: dict[Future[Batch], tuple[str, int]],
        batches: Iterator[tuple[str, int]],
    ) -> None:
        while not self._is_over():
            while len(running) < 2 * self._options.processes:
                property, number = next(batches)
                running[executor.submit(_run, property, number, self._options.seed)] = (property, number)
            finished, _ = wait(running, timeout=1, return_when=FIRST_COMPLETED)
            for future in finished:
                self._tally.add(future.result())
                del running[future]
            self._tell()

    def _tell(self) -> None:
        now = time.monotonic()
        if now - self._written > WRITTEN_SECONDS:
            self._written = now
            self._tally.write(now - self._begin)
        if now - self._told > TOLD_SECONDS:
            self._told = now
            print(f"{self._tally.judged} answers in {now - self._begin:.0f} s", flush=True)


def _run(property: str, number: int, seed: int) -> Batch:
    return _drawer.run(property, number, seed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
