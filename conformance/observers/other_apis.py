"""The same chats by the other APIs of vLLM's server: Responses, Anthropic's messages, and plain completions.

Every function returns the answer to one case as ``chat`` does: one message for each delivery, and the finish reason in
the words of chat completions.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import httpx

from conformance.formats import json_lines
from conformance.formats.json_files import parse_json
from conformance.serving.server import Server
from conformance.workload.chat_cases import Case

if TYPE_CHECKING:
    import openai

Said = tuple[list[dict[str, Any]], str | None]
Dialect = Callable[[Server, "openai.OpenAI", Case, bool, float], Said]

REASONS = {"tool_use": "tool_calls", "end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length"}


def responses(server: Server, client: openai.OpenAI, case: Case, stream: bool, _seconds: float) -> Said:
    """OpenAI's Responses API. It has no finish reason: a complete answer ended with its calls or with its text."""
    tools = [{"type": "function", **tool["function"]} for tool in case.tools]
    ask: dict[str, Any] = {
        "model": server.model,
        "input": list(case.messages),
        "max_output_tokens": case.max_tokens,
        "temperature": 0,
        **({"tools": tools} if tools else {}),
    }
    if stream:
        *_, last = client.responses.create(**ask, stream=True)
        whole = last.response  # the last event of the stream holds everything
    else:
        whole = client.responses.create(**ask)
    calls = [
        {"index": place, "id": item.call_id, "name": item.name, "arguments": item.arguments}
        for place, item in enumerate(item for item in whole.output if item.type == "function_call")
    ]
    thoughts = [part.text for item in whole.output if item.type == "reasoning" for part in item.content or []]
    finish = ("tool_calls" if calls else "stop") if whole.status == "completed" else whole.status
    return [{"content": whole.output_text, "reasoning": "".join(thoughts) or None, "calls": calls}], finish


def anthropic(server: Server, _client: openai.OpenAI, case: Case, stream: bool, seconds: float) -> Said:
    """Anthropic's /v1/messages; tool inputs are objects, or pieces of JSON text if streamed."""
    tools = [
        {"name": tool["name"], "description": tool.get("description", ""), "input_schema": tool["parameters"]}
        for tool in (each["function"] for each in case.tools)
    ]
    ask = {
        "model": server.model,
        "messages": list(case.messages),
        "max_tokens": case.max_tokens,
        "temperature": 0,
        "stream": stream,
        **({"tools": tools} if tools else {}),
    }
    response = _post(server, "/v1/messages", ask, seconds)
    if stream:
        return _anthropic_stream(response.text)
    blocks = response.json()["content"]
    calls = [
        {"index": place, "id": block["id"], "name": block["name"], "arguments": json.dumps(block["input"])}
        for place, block in enumerate(block for block in blocks if block["type"] == "tool_use")
    ]
    text = {
        kind: "".join(block.get(kind, "") for block in blocks if block["type"] == kind) for kind in ("text", "thinking")
    }
    message = {"content": text["text"], "reasoning": text["thinking"] or None, "calls": calls}
    return [message], REASONS.get(response.json()["stop_reason"])


def _anthropic_stream(text: str) -> Said:
    messages: list[dict[str, Any]] = []
    places: dict[int, int] = {}  # the position of a content block among the calls
    finish = None
    for event in _events(text):
        if event["type"] == "content_block_start" and event["content_block"]["type"] == "tool_use":
            places[event["index"]] = len(places)
            block = event["content_block"]
            call = {"index": places[event["index"]], "id": block["id"], "name": block["name"], "arguments": None}
            messages.append({"content": None, "reasoning": None, "calls": [call]})
        if event["type"] == "content_block_delta":
            messages.append(_anthropic_delta(event, places))
        if event["type"] == "message_delta":
            finish = REASONS.get(event["delta"].get("stop_reason")) or finish
    return messages, finish


def _anthropic_delta(event: dict[str, Any], places: dict[int, int]) -> dict[str, Any]:
    delta = event["delta"]
    pieces = delta.get("partial_json")
    call = {"index": places.get(event["index"], 0), "id": None, "name": None, "arguments": pieces}
    return {"content": delta.get("text"), "reasoning": delta.get("thinking"), "calls": [call] if pieces else []}


def completions(server: Server, client: openai.OpenAI, case: Case, stream: bool, seconds: float) -> Said:
    """Plain completions of the prompt that the server's own /tokenize renders."""
    ask = {
        "model": server.model,
        "messages": list(case.messages),
        "add_generation_prompt": True,
        "chat_template_kwargs": case.chat_template_kwargs or {},
    }
    prompt = _post(server, "/tokenize", ask, seconds).json()["tokens"]
    more: dict[str, Any] = {"model": server.model, "prompt": prompt, "max_tokens": case.max_tokens, "temperature": 0}
    if not stream:
        (choice,) = client.completions.create(**more).choices
        return [{"content": choice.text, "reasoning": None, "calls": []}], choice.finish_reason
    messages, finish = [], None
    for chunk in client.completions.create(**more, stream=True):
        for choice in chunk.choices:
            messages.append({"content": choice.text, "reasoning": None, "calls": []})
            finish = choice.finish_reason or finish
    return messages, finish


# By name: the function that asks, and the groups whose cases with a single message it asks.
DIALECTS: dict[str, tuple[Dialect, tuple[str, ...]]] = {
    "responses": (responses, ("call", "required", "omitted")),
    "anthropic": (anthropic, ("call", "required", "omitted")),
    "completions": (completions, ("quiet", "omitted")),
}


def _post(server: Server, path: str, body: dict[str, Any], seconds: float) -> httpx.Response:
    """The answer to one POST request.

    Raises:
        Refused: the status is an error.
    """
    response = server.request("POST", path, seconds, body)
    if response.is_error:
        raise Refused(response.status_code, response.text)
    return response


class Refused(Exception):
    """The server answered with an HTTP status of an error."""

    def __init__(self, status_code: int, message: str) -> None:
        super().__init__(message)
        self.status_code, self.message = status_code, message


def _events(text: str) -> Iterator[dict[str, Any]]:
    for _, line in json_lines.numbered_lines(text):
        data = line.removeprefix("data:").strip()
        if line.startswith("data:") and data != "[DONE]":
            yield parse_json(data)
