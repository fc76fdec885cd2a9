"""Made-up observations of the chat API and of the parser: the server answers every case correctly."""

from __future__ import annotations

import json
from typing import Any

CALLING = ("call", "nested", "two", "thought", "rounds", "awkward", "delimiter", "required", "named", "load")
TALKING = ("none", "result", "thinking", "quiet", "omitted", "result-thinking", "remembering", "completions")
FORCED = ("forced", "forced-omitted", "forced-thinking")
STRICT = ("strict", "strict-omitted", "strict-thinking", "strict-tools", "object", "strict-8", "strict-24", *FORCED)
CHOOSING = ("choice", "regex", "grammar")
BOTH = ("responses", "anthropic")
THINKING = ("thought", "thinking", "result-thinking", "remembering", "strict-thinking", "forced-thinking")
ALONE = ("load", "strict-8", "strict-24", *BOTH, "completions")  # not asked without MTP
CASES = 8
WAYS = (("mtp", 0), ("mtp", 1), ("plain", 0), ("plain", 1))
TYPES = {"city": "string", "days": "integer", "metric": "boolean"}
PARAMETERS = {"type": "object", "properties": {name: {"type": kind} for name, kind in TYPES.items()}}
TOOL = {"type": "function", "function": {"name": "get_weather", "description": "-", "parameters": PARAMETERS}}
SCHEMA = {"type": "object", "properties": {"days": {"type": "integer"}}, "required": ["days"]}
FORMAT = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True}}


def chats() -> dict[str, Any]:
    """One document for each group of cases."""
    groups = (*CALLING, *TALKING, *STRICT, *CHOOSING, *BOTH)
    return {f"chat-{group}": document(group, [case(group, number) for number in range(CASES)]) for group in groups}


def case(group: str, number: int) -> dict[str, Any]:
    """A row of chat.jsonl."""
    row: dict[str, Any] = {
        "id": f"{group}-{number:02}",
        "group": group,
        "licence": "Apache-2.0",
        "messages": [{"role": "user", "content": "-"}],
        "max_tokens": 64,
    }
    expected: dict[str, Any] = {"reasons": group in THINKING}
    if group in CALLING or (group in BOTH and number % 2 == 0):
        row["tools"] = [TOOL]
        arguments = {"city": "Oslo {1}", "days": number, "metric": True}
        expected["calls"] = [{"name": "get_weather", "arguments": arguments}] * (2 if group == "two" else 1)
    elif group in STRICT:
        row["response_format"] = FORMAT
        expected["json"] = {"days": number}
    elif group in CHOOSING:
        expected |= {"content": f"The code is {number}.", "one_of": [f"The code is {number}.", "none"]}
        expected |= {"pattern": r"The code is \d\."}
    elif group != "none":
        expected["content"] = f"Tale {number}."
    if group in ("required", "none"):
        row["tool_choice"] = group
    return row | {"expected": expected}


def document(group: str, cases: list[dict[str, Any]]) -> dict[str, Any]:
    """The observation of one group, each case asked in every way."""
    ways = [way for way in WAYS if way[0] == "mtp" or group not in ALONE]
    answers = [
        {"case": row["id"], "server": server, "interval": interval, **answer(row, streamed=interval > 0)}
        for row in cases
        for server, interval in ways
    ]
    return {"group": group, "cases": {row["id"]: row for row in cases}, "answers": answers}


def answer(row: dict[str, Any], streamed: bool) -> dict[str, Any]:
    """The right answer to one case, in one message or in several."""
    expected = row["expected"]
    text = expected.get("content") or ("I do not call." if not expected.get("calls") else "")
    text = json.dumps(expected["json"]) if "json" in expected else text
    calls = [
        {"index": place, "id": f"c{place}", "name": call["name"], "arguments": json.dumps(call["arguments"])}
        for place, call in enumerate(expected.get("calls", []))
    ]
    whole = {"content": text or None, "reasoning": "I think." if expected["reasons"] else None, "calls": calls}
    messages = pieces(whole) if streamed else [whole]
    return {"messages": messages, "finish_reason": "tool_calls" if calls else "stop", "error": None}


def pieces(whole: dict[str, Any]) -> list[dict[str, Any]]:
    """A message as a stream delivers it: thoughts, text in two halves, each call by name and then by arguments."""
    blank = {"content": None, "reasoning": None, "calls": []}
    parts = [{**blank, "reasoning": whole["reasoning"]}] if whole["reasoning"] else []
    text = whole["content"] or ""
    parts += [{**blank, "content": half} for half in (text[: len(text) // 2], text[len(text) // 2 :]) if half]
    for call in whole["calls"]:
        rest = {"index": call["index"], "id": None, "name": None, "arguments": call["arguments"]}
        parts += [{**blank, "calls": [{**call, "arguments": ""}]}, {**blank, "calls": [rest]}]
    return parts


def parsers() -> dict[str, Any]:
    """A parser that has every property."""
    whole = {"examples": 200, "counterexample": None}
    return {
        "vllm_version": "0.32.0",
        "round_trip": {kind: dict(whole) for kind in ("scalars", "nested", "unions", "untyped")},
        "published": dict(whole),
        "chunking": {name: dict(whole) for name in ("call-0", "two-0", "thought-0")},
        "any_text": dict(whole),
        "answers": {
            name: {"examples": 200, "refused": 0, "kinds": []}
            for name in ("schemas", "suite", "names", "near_native", "cut", "thinking")
        },
    }


def misuse() -> dict[str, Any]:
    """A server that refuses wrong requests, frees what departed clients held, and stays alive."""
    wrong = {"malformed-json": [400, 422], "unknown-model": [404], "broken-grammar": [400, 422]}
    return {
        "requests": [
            {
                "id": id,
                "about": "grammar" if "grammar" in id else "request",
                "statuses": statuses,
                "status": statuses[0],
                "message": "no",
            }
            for id, statuses in wrong.items()
        ],
        "departures": [
            {"id": id, "clients": clients, "delivered": clients, "running": 0, "kv_usage": 0.0}
            | {"asked": 512 * clients, "generated": 9 * clients}
            for id, clients in (("one client leaves", 1), ("eight clients leave at once", 8))
        ],
        "before": "Tale.",
        "after": "Tale.",
    }
