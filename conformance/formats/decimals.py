"""Numbers as people and models write them."""

from __future__ import annotations

import re
from decimal import Decimal

WRITTEN = re.compile(r"-?\$?\d[\d,]*(?:\.\d+)?")


def number(text: str) -> Decimal:
    """The value of a number, without commas and dollar signs.

    lm-evaluation-harness compares answers to GSM8K in this way (``regexes_to_ignore`` of
    lm_eval/tasks/gsm8k/gsm8k.yaml).

    Raises:
        decimal.InvalidOperation: it is no number.
    """
    return Decimal(text.replace(",", "").replace("$", ""))


def last_number(text: str) -> Decimal | None:
    """The value of the last number in a text; None if it has none."""
    found = WRITTEN.findall(text)
    return number(found[-1]) if found else None
