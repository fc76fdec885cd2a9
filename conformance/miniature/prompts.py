"""The shipped prompts: held-out examples in the API's form, by category, with id and licence per row."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from conformance.miniature import tasks
from conformance.miniature.evaluate import answers, exact
from conformance.miniature.model import Target
from conformance.miniature.tasks import Example, Message, Task

LICENCE = "Apache-2.0"
PER_CATEGORY = 12
TOOL_ROWS = 48
LONGEST = 256


def _language(word: str) -> Callable[[Example], bool]:
    return lambda example: example.messages[0]["content"].startswith(word)


CATEGORIES: dict[str, tuple[Task, Callable[[Example], bool]]] = {
    "code": (tasks.code, lambda _: True),
    "prose-en": (tasks.prose, _language("Tell")),
    "prose-de": (tasks.prose, _language("Erzähle")),
    "prose-es": (tasks.prose, _language("Cuenta")),
    "json": (tasks.json_answer, lambda _: True),
    "records": (tasks.records, lambda _: True),
    "tool-call": (tasks.tool_call, lambda _: True),
    "tool-result": (tasks.tool_result, lambda _: True),
    "long-context": (tasks.recall, lambda _: True),
    "multi-turn": (tasks.chat, lambda _: True),
}


def for_api(messages: list[Message]) -> list[Message]:
    """Messages as the OpenAI API wants them: arguments of earlier calls are JSON text."""
    return [
        message | {"tool_calls": [_call_for_api(call) for call in message["tool_calls"]]}
        if "tool_calls" in message
        else message
        for message in messages
    ]


def _call_for_api(call: Message) -> Message:
    function = call["function"]
    return call | {"function": function | {"arguments": json.dumps(function["arguments"], ensure_ascii=False)}}


def row(name: str, category: str, example: Example) -> dict[str, Any]:
    """One line of a prompt file."""
    made: dict[str, Any] = {"id": name, "category": category, "licence": LICENCE}
    made |= {"messages": for_api(example.messages), "max_tokens": LONGEST}
    if example.tools:
        made["tools"] = example.tools
    if example.thinking:
        made["chat_template_kwargs"] = {"enable_thinking": True}
    return made


def mixed(seed: int) -> Iterator[dict[str, Any]]:
    """The mixed set: the same number of held-out prompts of every category."""
    for category, (task, keep) in CATEGORIES.items():
        stream = filter(keep, tasks.examples(seed, held_out=True, kinds=(task,)))
        for number, example in enumerate(itertools.islice(stream, PER_CATEGORY)):
            yield row(f"{category}-{number:02}", category, example)


def tool_calls(target: Target, tokenizer: PreTrainedTokenizerFast, seed: int) -> Iterator[dict[str, Any]]:
    """Held-out single calls which the target gets right: what is examined is the server, not the model's skill."""
    for task in (tasks.tool_call, tasks.tool_nested):
        chosen = list(itertools.islice(tasks.examples(seed, held_out=True, kinds=(task,)), TOOL_ROWS))
        said = answers(target, tokenizer, chosen, LONGEST)
        right = [example for example, answer in zip(chosen, said, strict=True) if exact(example, answer)]
        for number, example in enumerate(right[: TOOL_ROWS // 2]):
            (call,) = example.expected
            yield row(f"{example.kind}-{number:02}", example.kind, example) | {"expected": call}


def write_jsonl(path: Path, rows: Iterator[dict[str, Any]]) -> None:
    """One JSON object a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(each, ensure_ascii=False) + "\n" for each in rows), encoding="utf-8")
