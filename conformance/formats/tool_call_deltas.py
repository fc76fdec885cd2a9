"""Puts tool calls together from the deltas of a stream."""

from __future__ import annotations


def add_to_call(calls: list[dict[str, str]], index: int, **parts: str | None) -> None:
    """Append these parts to the call with that index in the answer, which may be new."""
    while len(calls) <= index:
        calls.append(dict.fromkeys(parts, ""))
    for name, text in parts.items():
        calls[index][name] += text or ""
