"""Removes characters that a report must not contain, whatever a server or a model has written."""

from __future__ import annotations

import json
import re
from typing import Any

UNPRINTABLE = re.compile("[^\t\n\r\u0020-\u007e\u00a0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def printable(text: str) -> str:
    """The text without control codes and halves of surrogates, which XML, HTML, UTF-8 or a terminal do not allow."""
    return UNPRINTABLE.sub("?", text)


def json_text(document: Any) -> str:
    """One JSON document in the form of all reports.

    Raises:
        ValueError: a number is NaN or infinite.
    """
    return printable(json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
