"""What tests of exhibits share."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import pytest

from conformance.judging.verdict import Outcome
from negative_controls.museum.exhibits import SEEN, Display, load_museum, seen


@pytest.fixture
def display(record_property: Callable[[str, object], None], request: pytest.FixtureRequest) -> Display:
    """Write down what the checks made of an exhibit, for ``scripts/museum``."""

    def show(expected: Collection[str], outcomes: Mapping[str, Outcome], log: str = "") -> None:
        shown = request.node.get_closest_marker("exhibit")
        mended = load_museum().named()[shown.args[0]].mended if shown else ""
        record_property(SEEN, seen(expected, outcomes, log, mended))

    return show
