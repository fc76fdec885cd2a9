"""The scene of a fault; a test that declares a fault and never holds an end against it fails."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.scene import Scene

UNMENDED = Path(__file__).with_name("unmended.txt")


@pytest.hookimpl(tryfirst=True)  # before pytest chooses by marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the slow faults; a fault whose name is listed fails today."""
    listed = UNMENDED.read_text().splitlines() if UNMENDED.exists() else []
    for item in items:
        for mark in item.iter_markers("fault"):
            if not mark.args[0].quick:
                item.add_marker("faults")
            if mark.args[0].name in listed:
                item.add_marker(pytest.mark.xfail(strict=True))


@pytest.fixture
def scene(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Scene]:
    """The surroundings of the fault that this test declares."""
    (declared,) = (mark.args[0] for mark in request.node.iter_markers("fault"))
    made = Scene(declared, tmp_path)
    yield made
    made.clear()
    assert made.expected, "this test held no end against its fault"
