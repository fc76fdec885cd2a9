"""JSON values that are one value, whatever their spelling."""

from __future__ import annotations

import json
import math

import pytest

from conformance.formats.canonical_json import keeps_json, same_json

HUGE = 10**400
NAMES = ["nan", "inf", "-inf", "huge", "-huge"]


@pytest.mark.parametrize(
    ("one", "other"),
    [({"a": 1}, {"a": 1.0}), (2**53 + 1, float(2**53)), (math.nan, math.nan), (json.loads("1e999"), math.inf)],
)
def test_one_number_in_two_spellings(one: object, other: object) -> None:
    assert same_json(one, other)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, HUGE, -HUGE], ids=NAMES)
def test_what_no_double_holds_is_no_other_number_and_no_text(number: float) -> None:
    assert same_json([number], [number])
    for other in (0, None, True, 2**53, HUGE + 1, "NaN", "Infinity", json.dumps(number)):
        assert not same_json([number], [other])


@pytest.mark.parametrize(
    ("expected", "found", "kept"),
    [
        (3, 3.0, True),
        (3, True, False),
        (3, "3", False),
        (-0.0, 0, True),
        (2**53 + 1, 2**53 + 1, True),
        (2**53 + 1, 2**53, False),
        (2**53 + 1, float(2**53), False),
        (10**400, 1e300, False),
        (1e23, 10**23, True),
        (1e23, int(1e23), True),
        (1e300, 10**400, False),
        ({"a": [1]}, {"a": [1.0]}, True),
        ({"a": [1]}, {"a": [1], "b": None}, False),
        ([1, 2], [1], False),
        (None, "null", False),
    ],
)
def test_every_digit_of_an_integer_is_kept(expected: object, found: object, kept: bool) -> None:
    assert keeps_json(expected, found) is kept
