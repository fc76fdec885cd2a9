"""What a run leaves behind on its machine: processes, shared memory, sockets and temporary files."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

SHARED = Path("/dev/shm")


@dataclass(frozen=True)
class Surroundings:
    """A run's own temporary folder, and the beginning of the names of its servers' shared memory."""

    temporary: Path
    shared: str

    def left(self, processes: Callable[[], list[str]], seconds: float = 10.0) -> list[str]:
        """What is still there after so many seconds."""
        deadline = time.monotonic() + seconds
        while (found := [*processes(), *self._files()]) and time.monotonic() < deadline:
            time.sleep(0.1)
        return found

    def _files(self) -> Iterator[str]:
        for path in sorted(self.temporary.iterdir()):
            yield f"the temporary file {path.name}"
        for path in self.segments():
            yield f"the shared memory {path.name}"

    def segments(self) -> list[Path]:
        """The shared memory of the run's servers."""
        return sorted(SHARED.glob(f"{self.shared}*"))
