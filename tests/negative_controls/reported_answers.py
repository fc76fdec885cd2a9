"""What public reports show of vLLM's parser, so that tests can find it among drawn answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

MODULE = "negative_controls.museum.drawn_findings"
BATCH = {"schemas": 100, "near_native": 150, "cut": 50}  # answers; batches follow until each report is found
MOST_BATCHES = 12
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


def shows(report: str, finding: dict[str, Any]) -> bool:
    """Whether a finding of ``drawn_findings`` is what the report is about."""
    property, harm, cause, holds = REPORTS[report]
    same = (finding["property"], finding["harm"]) == (property, harm) and cause in finding["causes"]
    return same and not any(word in finding["text"] for word in LITERALS) and holds(finding)
