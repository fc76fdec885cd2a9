"""One spelling for equal JSON values, so that they can be compared and shown."""

from __future__ import annotations

import json
import math
from typing import Any

EXACT = 2**53


def canonical_json(value: Any) -> str:
    """The JSON text of a value with sorted keys and 329.0 written as 329; 3, true and "3" differ.

    In JSON, 329.0 and 329 are the same number (JSON Schema, section 6.1.1), and from 2 ** 53 on a number is as exact as
    a double (RFC 8259, section 6). Numbers that no double can hold are unchanged, and so are NaN and infinity.
    """
    return json.dumps(_numbers(value), sort_keys=True, ensure_ascii=False)


def same_json(one: Any, other: Any) -> bool:
    """Whether two values are equal in JSON."""
    return canonical_json(one) == canonical_json(other)


def _numbers(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return value
    if abs(value) < EXACT:
        return int(value) if value == int(value) else value
    try:
        return float(value)
    except OverflowError:
        return value


def keeps_json(expected: Any, found: Any) -> bool:
    """Whether ``found`` is ``expected`` in JSON, with every digit of an integer; 3.0 is 3, and 1e23 is its double.

    ``same_json`` takes a number from 2 ** 53 on for a double. Here it is one only if ``expected`` is a float.
    """
    if isinstance(expected, dict) and isinstance(found, dict):
        return expected.keys() == found.keys() and all(keeps_json(expected[key], found[key]) for key in expected)
    if isinstance(expected, list) and isinstance(found, list):
        return len(expected) == len(found) and all(map(keeps_json, expected, found))
    if _is_number(expected) and _is_number(found):
        return bool(expected == (_as_double(found) if isinstance(expected, float) else found))
    return type(expected) is type(found) and bool(expected == found)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _as_double(number: float) -> float:
    try:
        return float(number)
    except OverflowError:
        return math.inf
