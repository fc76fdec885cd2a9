"""What public reports show of vLLM's parser, so that tests can find it among drawn answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

MODULE = "negative_controls.museum.drawn_findings"
DRAWN = {"schemas": 150, "near_native": 400, "cut": 50}
# None of these counts, so that a finding is not the report itself.
LITERALS = ("days:3", "x:3", "t:3", "ds_1", "a,b", "Paris", "ls -a", "mcp.calendar", "get_time", "pay{", "get_wea")
Shows = Callable[[dict[str, Any]], bool]


def _always(_found: dict[str, Any]) -> bool:
    return True


def _first(found: dict[str, Any]) -> dict[str, Any]:
    calls = found["found"]["calls"]
    return dict(calls[0]) if calls else {}


def _keys(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield from value
        for each in value.values():
            yield from _keys(each)


# report -> property, harm, cause, and what else must be so
REPORTS: dict[str, tuple[str, str, str, Shows]] = {
    "a value below a reference": ("schemas", "value changed", "below $ref", _always),
    "a reference beside null": (
        "schemas",
        "value changed",
        "below $ref",
        lambda found: "below anyOf" in found["causes"],
    ),
    "additionalProperties": ("schemas", "value changed", "additionalProperties", _always),
    "const": ("schemas", "value changed", "const", _always),
    "quotes of JSON": ("near_native", "value changed", "JSON quotes", lambda found: '"' in str(_first(found))),
    "a mark in a key": (
        "near_native",
        "leaked mark",
        "no opening mark",
        lambda found: any('<|"|>' in key for call in found["found"]["calls"] for key in _keys(call["arguments"])),
    ),
    "the first of two calls without its arguments": (
        "near_native",
        "lost in silence",
        "parentheses and equals signs",
        lambda found: len(found["found"]["calls"]) == 2 and _first(found)["arguments"] == {},
    ),
    "a name that loses what is before its colon": (
        "near_native",
        "value changed",
        "no call:",
        lambda found: found["given"]["calls"][0]["name"].endswith(":" + _first(found)["name"]),
    ),
    "neither call nor text": (
        "near_native",
        "lost in silence",
        "no call: and no arguments",
        lambda found: found["found"] == {"reasoning": "", "content": "", "calls": []},
    ),
    "a finished call of cut arguments": ("cut", "value changed", "cut arguments", _always),
    "a call of half a name": (
        "cut",
        "value changed",
        "cut name",
        lambda found: found["text"].endswith("call:" + found["found"]["calls"][-1]["name"]),
    ),
}
FORMS = sorted({cause for property, _, cause, _ in REPORTS.values() if property == "near_native"})


ASKED = {"drawn": DRAWN, "forms": FORMS}


def findings_of(report: str, printed: str) -> tuple[list[str], list[str]]:
    """The answers that show the report, and all that have its harm and cause; ``printed`` by ``drawn_findings``."""
    property, harm, cause, shows = REPORTS[report]
    rows = [json.loads(line) for line in printed.splitlines() if line.startswith("{")]
    same = [each for each in rows if (each["property"], each["harm"]) == (property, harm) and cause in each["causes"]]
    same = [each for each in same if not any(word in each["text"] for word in LITERALS)]
    return [each["text"] for each in same if shows(each)], [each["text"] for each in same]
