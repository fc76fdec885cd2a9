"""Spoils the process of a run in one way, as a machine does."""

from __future__ import annotations

from pathlib import Path


def nothing(_folder: Path) -> None:
    """Leave the process as it is."""
