"""Which characters a report may hold, whatever a server or a model has written."""

from __future__ import annotations

import re

UNPRINTABLE = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def printable(text: str) -> str:
    """Without the characters that XML, HTML or UTF-8 cannot hold: control codes, and halves of surrogate pairs."""
    return UNPRINTABLE.sub("?", text)
