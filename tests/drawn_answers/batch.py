"""One batch of drawn answers, judged in a process of its own.

The parser is made once, in the parent; the processes are forked with it. A batch is known by its property and its
number: with the seed they say which answers it draws.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from conformance.inside_vllm.answer_trials import Answers, Causes, Given, Judged, Kinds, draw
from conformance.inside_vllm.parser_trials import Trials

BATCH = 250  # answers
LIMIT_SECONDS = 20  # for one answer, which takes some milliseconds
PROPERTIES = ("schemas", "names", "near_native", "cut")


class TooLong(Exception):
    """An answer was not judged within ``LIMIT_SECONDS``."""


@dataclass
class Batch:
    """What one batch found: counts, kinds with their smallest examples, and inputs that could not be judged."""

    property: str
    number: int
    answers: int = 0
    judged: int = 0
    refused: int = 0
    found: dict[tuple[str, Causes], dict[str, Any]] = field(default_factory=dict)
    failures: list[dict[str, Any]] = field(default_factory=list)
    digests: set[int] = field(default_factory=set)


class Drawer:
    """Draws and judges batches for one parser."""

    def __init__(self, parser: Any, template: str) -> None:
        """``template`` is the chat template, which writes the calls."""
        self.answers = Answers(parser, Trials(parser, template, 1).native)

    def run(self, property: str, number: int, seed: int, size: int = BATCH) -> Batch:
        """Draw and judge one batch. It never raises; what fails is in ``failures``."""
        batch, kinds = Batch(property, number), Kinds()

        def take(given: Given) -> None:
            batch.answers += 1
            text = json.dumps(given, sort_keys=True)
            batch.digests.add(int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big"))
            try:
                kinds.add(self._judge(property, given))
            except Exception:
                batch.failures.append({"given": given, "error": traceback.format_exc()[-2000:]})

        try:
            draw(self.answers.drawn()[property], take, size, f"{seed} {property} {number}")
        except Exception:
            batch.failures.append({"given": None, "error": traceback.format_exc()[-2000:]})
        batch.judged, batch.refused, batch.found = kinds.examples, kinds.refused, kinds.found
        return batch

    def _judge(self, property: str, given: Given) -> Judged:
        with time_limit(LIMIT_SECONDS):
            return self.answers.judges[property](given)


@contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    """Raise ``TooLong`` in what takes longer; only in a process's main thread."""

    def end(_signal: int, _frame: FrameType | None) -> None:
        raise TooLong(f"not judged within {seconds} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def end_with(parent: int) -> None:
    """Let this process end soon after its parent, however that ends. The parent alone answers to signals."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
