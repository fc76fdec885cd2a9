"""Which characters a report may hold, whatever a server or a model has written."""

from __future__ import annotations

import json
import re
from typing import Any

UNPRINTABLE = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def printable(text: str) -> str:
    """Without the characters that XML, HTML or UTF-8 cannot hold: control codes, and halves of surrogate pairs."""
    return UNPRINTABLE.sub("?", text)


def json_text(document: Any) -> str:
    """One JSON document as every report prints it; ValueError where a number is none."""
    return printable(json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
