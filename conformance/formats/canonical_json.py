"""One spelling for equal JSON values, so that they can be compared and shown."""

from __future__ import annotations

import json
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
