"""Kept texts: what a terminal shows is compared with a file, which SNAPSHOTS=write writes anew."""

from __future__ import annotations

import os

from support.paths import ROOT

FOLDER = ROOT / "tests" / "snapshots"


def expect_snapshot(name: str, text: str) -> None:
    """The text is the one that tests/snapshots keeps under this name."""
    path = FOLDER / f"{name}.txt"
    if os.environ.get("SNAPSHOTS") == "write":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert path.is_file(), f"{path} is missing: SNAPSHOTS=write pytest tests writes it"
    assert text == path.read_text(encoding="utf-8"), f"another text than in {path}; SNAPSHOTS=write keeps this one"
