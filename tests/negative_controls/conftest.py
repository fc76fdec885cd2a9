"""What tests of exhibits share."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import pytest

from conformance.judging.verdict import Outcome
from negative_controls.museum.exhibits import SEEN, Display, seen


@pytest.fixture
def display(record_property: Callable[[str, object], None]) -> Display:
    """Write down what the checks made of an exhibit, for ``scripts/museum``."""

    def show(expected: Collection[str], outcomes: Mapping[str, Outcome]) -> None:
        record_property(SEEN, seen(expected, outcomes))

    return show
