"""The questions whose answers ``max_tokens`` cuts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PAY = {
    "type": "function",
    "function": {
        "name": "count_letter",
        "description": "count letter.",
        "parameters": {
            "type": "object",
            "properties": {"price": {"type": "integer"}, "city": {"type": "string"}},
        },
    },
}
QUESTIONS: Mapping[str, Mapping[str, Any]] = {
    "call": {
        "messages": [{"role": "user", "content": 'Call count_letter with price 1000, city "copper".'}],
        "tools": [PAY],
        "chat_template_kwargs": {"enable_thinking": False},
    },
    "thought": {
        "messages": [{"role": "user", "content": "Write lift_door of price and text in Python."}],
        "chat_template_kwargs": {"enable_thinking": True},
    },
}
