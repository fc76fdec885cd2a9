"""Who holds the lock over the servers, and for how long: the answer for those who wait."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conformance.evidence.folder import making, waiting, write_atomically


@dataclass(frozen=True)
class Holders:
    """A file in ``folder`` for each thread that holds the lock, with what it does and since when."""

    folder: Path
    tell: Callable[[str], None]

    @contextmanager
    def held(self, acquire: Callable[[float], AbstractContextManager[Any]]) -> Iterator[None]:
        """Acquire the lock, say every few seconds for whom it waits, and be named as its holder."""
        mine = self.folder / f"{os.getpid()}-{threading.get_ident()}.json"
        with waiting(acquire, self.names, self.tell):
            if mine.exists():  # the thread holds the lock already
                yield
                return
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomically(mine, json.dumps({"what": making() or "a check", "since": time.time()}))
            try:
                yield
            finally:
                mine.unlink(missing_ok=True)

    def names(self) -> str:
        """What the holders do, each with its seconds."""
        found = []
        for path in sorted(self.folder.glob("*.json")):
            try:
                holder = json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError):  # it has just released the lock
                continue
            found.append(f"{holder['what']} ({time.time() - holder['since']:.0f} s)")
        return " and ".join(found) or "the servers"
