"""Which characters a report may hold, whatever a server or a model has written."""

from __future__ import annotations

import json
import re
from typing import Any

UNPRINTABLE = re.compile("[^\t\n\r\u0020-\u007e\u00a0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def printable(text: str) -> str:
    """Without the characters that XML, HTML, UTF-8 or a terminal cannot bear: control codes, halves of surrogates."""
    return UNPRINTABLE.sub("?", text)


def json_text(document: Any) -> str:
    """One JSON document as every report prints it; ValueError where a number is none."""
    return printable(json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
