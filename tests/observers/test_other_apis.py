"""The other APIs: what their answers are read as."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from support import synthetic_chat

from conformance.observers import other_apis
from conformance.workload.chat_cases import Case, Expected

CASE = Case("c", "call", "CC0-1.0", ({"role": "user", "content": "-"},), 64, Expected(), tools=(synthetic_chat.TOOL,))
CALL = {"index": 0, "id": "c0", "name": "get_weather", "arguments": '{"city": "Oslo"}'}


def serving(*answers: Any, status: int = 200) -> Any:
    """A server that gives these answers, one after the other."""
    left = list(answers)

    def request(_method: str, _path: str, _seconds: float, body: Any) -> httpx.Response:
        sent.append(body)
        answer = left.pop(0)
        text = answer if isinstance(answer, str) else json.dumps(answer)
        return httpx.Response(status, text=text, request=httpx.Request("POST", "http://x"))

    sent: list[Any] = []
    return SimpleNamespace(model="m", request=request, sent=sent)


def events(*each: dict[str, Any]) -> str:
    return "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in each)


def test_anthropic_whole() -> None:
    server = serving(
        {
            "content": [
                {"type": "thinking", "thinking": "I call."},
                {"type": "tool_use", "id": "c0", "name": "get_weather", "input": {"city": "Oslo"}},
            ],
            "stop_reason": "tool_use",
        }
    )
    messages, finish = other_apis.anthropic(server, None, CASE, False, 1.0)  # type: ignore[arg-type]
    assert messages == [{"content": "", "reasoning": "I call.", "calls": [CALL]}]
    assert finish == "tool_calls"
    assert server.sent[0]["tools"][0]["input_schema"] == synthetic_chat.PARAMETERS


def test_anthropic_streamed() -> None:
    stream = events(
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Tale"}},
        {"type": "content_block_start", "index": 1, "content_block": {"type": "tool_use", "id": "c0", "name": "f"}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": '{"a":'}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": "1}"}},
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}},
        {"type": "message_stop"},
    )
    messages, finish = other_apis.anthropic(serving(stream), None, CASE, True, 1.0)  # type: ignore[arg-type]
    calls = [call for message in messages for call in message["calls"]]
    assert "".join(message["content"] or "" for message in messages) == "Tale"
    assert "".join(call["arguments"] or "" for call in calls) == '{"a":1}'
    assert (calls[0]["id"], calls[0]["name"], {call["index"] for call in calls}, finish) == (
        "c0",
        "f",
        {0},
        "tool_calls",
    )


@pytest.mark.parametrize("stream", [False, True])
def test_responses(stream: bool) -> None:
    item = SimpleNamespace(type="function_call", call_id="c0", name="get_weather", arguments='{"city": "Oslo"}')
    whole = SimpleNamespace(output=[item], output_text="", status="completed")
    asked: list[dict[str, Any]] = []

    def create(**ask: Any) -> Any:
        asked.append(ask)
        return [SimpleNamespace(response=None), SimpleNamespace(response=whole)] if ask.get("stream") else whole

    client: Any = SimpleNamespace(responses=SimpleNamespace(create=create))
    messages, finish = other_apis.responses(serving(), client, CASE, stream, 1.0)
    assert (messages, finish) == ([{"content": "", "reasoning": None, "calls": [CALL]}], "tool_calls")
    assert asked[0]["tools"][0]["name"] == "get_weather"


def test_completions_get_the_rendered_prompt() -> None:
    choice = SimpleNamespace(text="Tale.", finish_reason="stop")
    asked: list[dict[str, Any]] = []

    def create(**ask: Any) -> Any:
        asked.append(ask)
        return SimpleNamespace(choices=[choice])

    client: Any = SimpleNamespace(completions=SimpleNamespace(create=create))
    server, case = serving({"tokens": [2, 105]}), replace(CASE, chat_template_kwargs={"enable_thinking": False})
    assert other_apis.completions(server, client, case, False, 1.0)[0][0]["content"] == "Tale."
    assert asked[0]["prompt"] == [2, 105]
    assert server.sent[0]["chat_template_kwargs"] == {"enable_thinking": False}


def test_a_refusal_keeps_its_status() -> None:
    with pytest.raises(other_apis.Refused, match="no such path") as refused:
        other_apis.anthropic(serving("no such path", status=404), None, CASE, False, 1.0)  # type: ignore[arg-type]
    assert refused.value.status_code == 404
