"""Writes the shipped prompts: held-out examples in the API's form, by category, with an id and a licence."""

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
PER_CATEGORY = 20
TOOL_ROWS = 48
LONGEST = 256
GIVE_UP = 1000  # so many known examples in a row


def _asks(word: str) -> Callable[[Example], bool]:
    return lambda example: example.messages[-1]["content"].startswith(word)


# There are few questions for a tale or for records, so hardly one is held out. Most rows of these categories ask the
# question after another one, because such chats are many and not part of the training.
CATEGORIES: dict[str, tuple[tuple[Task, ...], Callable[[Example], bool]]] = {
    "code": ((tasks.code,), lambda _: True),
    "prose-en": ((tasks.prose, tasks.chat), _asks("Tell")),
    "prose-de": ((tasks.prose, tasks.chat), _asks("Erzähle")),
    "prose-es": ((tasks.prose, tasks.chat), _asks("Cuenta")),
    "json": ((tasks.json_answer,), lambda _: True),
    "records": ((tasks.records, tasks.chat), _asks("List")),
    "tool-call": ((tasks.tool_call,), lambda _: True),
    "tool-result": ((tasks.tool_result,), lambda _: True),
    "long-context": ((tasks.recall,), lambda _: True),
    "multi-turn": ((tasks.chat,), lambda _: True),
}

# Questions with checkable answers: their kind, the rule that an answer is compared by, and their number. Few have the
# long prompts of a recall, so that a run needs little time for them.
QUESTIONS: tuple[tuple[Task, str, int], ...] = (
    (tasks.tool_call, "calls", 40),
    (tasks.json_answer, "json", 52),
    (tasks.tool_result, "text", 20),
    (tasks.recall, "text", 8),
)
SHORT = 96  # characters, and tokens, of their answers


def for_api(messages: list[Message]) -> list[Message]:
    """Messages for the OpenAI API, in which arguments of earlier calls are JSON text."""
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


def distinct(stream: Iterator[Example], seen: set[str]) -> Iterator[Example]:
    """The examples that are not in ``seen``, to which they are added; ends when there are no new ones."""
    repeated = 0
    for example in stream:
        asked = json.dumps(example.messages)
        repeated = repeated + 1 if asked in seen else 0
        if repeated == GIVE_UP:
            return
        if not repeated:
            seen.add(asked)
            yield example


def mixed(seed: int) -> Iterator[dict[str, Any]]:
    """The mixed prompts: the same number of held-out prompts of every category."""
    seen: set[str] = set()
    for category, (kinds, keep) in CATEGORIES.items():
        stream = distinct(filter(keep, tasks.examples(seed, held_out=True, kinds=kinds)), seen)
        for number, example in enumerate(itertools.islice(stream, PER_CATEGORY)):
            yield row(f"{category}-{number:02}", category, example)


def tool_calls(target: Target, tokenizer: PreTrainedTokenizerFast, seed: int) -> Iterator[dict[str, Any]]:
    """Held-out single calls that the target makes correctly: they test the server, not the skill of the model."""
    for task in (tasks.tool_call, tasks.tool_nested):
        chosen = list(itertools.islice(tasks.examples(seed, held_out=True, kinds=(task,)), TOOL_ROWS))
        said = answers(target, tokenizer, chosen, LONGEST)
        right = [example for example, answer in zip(chosen, said, strict=True) if exact(example, answer)]
        for number, example in enumerate(right[: TOOL_ROWS // 2]):
            (call,) = example.expected
            yield row(f"{example.kind}-{number:02}", example.kind, example) | {"expected": call}


def questions(seed: int) -> Iterator[dict[str, Any]]:
    """Held-out questions with a short answer, right or wrong in the model's hands: they test its skill."""
    seen: set[str] = set()
    for task, rule, count in QUESTIONS:
        stream = filter(_is_short, tasks.examples(seed, held_out=True, kinds=(task,)))
        for number, example in enumerate(itertools.islice(distinct(stream, seen), count)):
            made = row(f"{example.kind}-{number:02}", example.kind, example)
            yield made | {"max_tokens": SHORT, "rule": rule, "expected": example.expected}


def _is_short(example: Example) -> bool:
    """Whether the answer has no thoughts and few characters, and no earlier turns have to be read."""
    turns = sum(message["role"] == "user" for message in example.messages)
    return not example.thinking and turns == 1 and len(example.answer) <= SHORT


def write_jsonl(path: Path, rows: Iterator[dict[str, Any]]) -> None:
    """Write one JSON object on each line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(each, ensure_ascii=False) + "\n" for each in rows), encoding="utf-8")
