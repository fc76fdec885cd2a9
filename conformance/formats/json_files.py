"""JSON that others may have written."""

from __future__ import annotations

import json
from typing import Any


def parse_json(text: str | bytes) -> Any:
    """What ``json.loads`` gives; raises ValueError too where it is nested more deeply than Python goes."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError(str(error)) from None
