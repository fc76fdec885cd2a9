"""Thinking on, off and left out; after a question and a tool's result; with a channel in the answer and without."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from jinja2.sandbox import ImmutableSandboxedEnvironment

from conformance.formats.gemma4_calls import CALL, CALL_END, CHANNEL, CHANNEL_END, Call
from conformance.inside_vllm.parser_findings import (
    CHANGED,
    LEAKED,
    LOST,
    Delivered,
    Wrong,
    marks_in,
    words_follow,
    wrong_call,
)

Render = Callable[..., str]
THOUGHT, TEXT, CALLED = "I look.", "Hello you.", Call("set_values", {"b": 3})
TOOL = {
    "type": "function",
    "function": {
        "name": "set_values",
        "description": "Set values.",
        "parameters": {"type": "object", "properties": {"b": {"type": "integer"}}},
    },
}
SETTINGS: tuple[dict[str, Any], ...] = ({"enable_thinking": True}, {"enable_thinking": False}, {})
_CHANNEL, _CALL = f"{CHANNEL}thought\n{THOUGHT}\n{CHANNEL_END}", f"{CALL}call:set_values{{b:3}}{CALL_END}"
# name: the answer; whether it has the thought, the text, the call
ANSWERS: dict[str, tuple[str, bool, bool, bool]] = {
    "no channel": (TEXT, False, True, False),
    "no channel, a call": (_CALL, False, False, True),
    "a channel": (_CHANNEL + TEXT, True, True, False),
    "a channel, a call": (_CHANNEL + _CALL, True, False, True),
    "an empty channel": (f"{CHANNEL}thought\n{CHANNEL_END}{TEXT}", False, True, False),
    "a channel without its begin": (f"{THOUGHT}\n{CHANNEL_END}{TEXT}", True, True, False),
    "a channel without its begin, a call": (f"{THOUGHT}\n{CHANNEL_END}{_CALL}", True, False, True),
}


def renderer(template: str) -> Render:
    """The chat template as a function of its arguments."""
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["raise_exception"] = _refuse
    return environment.from_string(template).render


def _refuse(message: str) -> None:
    raise ValueError(message)


def cases(render: Render) -> Iterator[dict[str, Any]]:
    """Every answer after every prompt, with what is expected."""
    call = {"id": "call_0", "type": "function", "function": {"name": CALLED.name, "arguments": CALLED.arguments}}
    question = [{"role": "user", "content": "Hello."}]
    result = [
        *question,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_0", "content": "done"},
    ]
    for kwargs in SETTINGS:
        for messages in (question, result):
            prompt = render(messages=messages, tools=[TOOL], bos_token="", add_generation_prompt=True, **kwargs)
            for name, (text, thought, said, called) in ANSWERS.items():
                opened = CHANNEL in prompt.rpartition(CHANNEL_END)[2]
                yield {
                    "text": text,
                    "prompt": prompt,
                    "tools": [TOOL],
                    "chat_template_kwargs": kwargs,
                    "open": opened,
                    "expected": {
                        "reasoning": THOUGHT if thought else "",
                        "content": TEXT if said else "",
                        "calls": [vars(CALLED)] if called else [],
                    },
                    "cause": f"{name} where the prompt opens one" if opened else name,
                }


def wrong(given: Mapping[str, Any], delivered: Delivered) -> list[Wrong]:
    """What is wrong with a delivery.

    Where a channel has no begin, or the prompt has opened it, the thought may be text and the text a thought: a reader
    cannot know. All of it must be visible.
    """
    expected, free = given["expected"], given["open"] or (CHANNEL not in given["text"] and CHANNEL_END in given["text"])
    visible = delivered["reasoning"] + "\n" + delivered["content"]
    found = [Wrong(LEAKED)] if marks_in(visible) else []
    for part in ("reasoning", "content"):
        if not words_follow(expected[part], visible if free else delivered[part]):
            found.append(Wrong(CHANGED if words_follow(expected[part], visible) else LOST))
    for number, call in enumerate(expected["calls"]):
        calls = delivered["calls"]
        found += wrong_call(Call(**call), calls[number]) if number < len(calls) else [Wrong(LOST)]
    found += [Wrong(CHANGED) for _ in delivered["calls"][len(expected["calls"]) :]]
    return found
