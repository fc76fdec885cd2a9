"""Records of long runs, as JSON in docs/results, and the day and the machine that they were made on."""

from __future__ import annotations

import json
import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


def read(path: Path) -> Any:
    """What is recorded; None if nothing is."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def write(path: Path, rows: Any) -> None:
    """Record it instead of what was there."""
    path.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def here() -> dict[str, str]:
    """The day and the machine, with the cores that this process may use."""
    every, ours = os.cpu_count(), len(os.sched_getaffinity(0))
    cores = f"{ours} cores" if ours == every else f"{ours} of {every} cores"
    return {"date": datetime.now(UTC).date().isoformat(), "machine": f"{platform.machine()}, {cores}"}
