"""Writes the shipped chats with a known right answer: held-out examples that the miniature answers correctly."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from transformers import PreTrainedTokenizerFast

from conformance.miniature import lexicon, tasks
from conformance.miniature.data import render
from conformance.miniature.evaluate import lead
from conformance.miniature.model import Target
from conformance.miniature.tasks import Example, Message, Task
from conformance.miniature.write_prompts import LICENCE, distinct, for_api

LONGEST = 200
WORDS = re.compile(r"\w+( \w+)+")
LEAD = 0.5  # nats; an answer whose tokens lead by less may correctly differ on another device
TYPES = {str: "string", bool: "boolean", int: "integer", float: "number"}

Row = dict[str, Any]
Shape = Callable[[Example], Row]


@dataclass(frozen=True)
class Group:
    """A group of cases: its kind of examples, the condition for one, and the function that makes a row of it."""

    name: str
    count: int
    kinds: tuple[Task, ...]
    shape: Shape
    keep: Callable[[Example], bool] = lambda _: True


# --- requests and expected answers ------------------------------------------------------------------------------


def _calls(example: Example, **more: Any) -> Row:
    return {"expected": {"calls": example.expected, "reasons": example.thinking}, **more}


def _required(example: Example) -> Row:
    return _calls(example, tool_choice="required")


def _named(example: Example) -> Row:
    return _calls(example, tool_choice={"type": "function", "function": {"name": example.expected[0]["name"]}})


def _none(_: Example) -> Row:
    return {"expected": {"reasons": False}, "tool_choice": "none"}


def _text(example: Example) -> Row:
    return {"expected": {"content": spoken(example), "reasons": example.thinking}}


def _omitted(example: Example) -> Row:
    return _text(example) | {"chat_template_kwargs": None}


def _remembering(example: Example) -> Row:
    """A row whose earlier answers contain their thoughts, as an agent sends them back."""
    messages = [
        {**each, "reasoning": "I think of it."} if each["role"] == "assistant" else each for each in example.messages
    ]
    return _text(example) | {"messages": for_api(messages)}


def _strict(example: Example) -> Row:
    schema = {
        "type": "object",
        "properties": {key: _schema(value) for key, value in example.expected.items()},
        "required": list(example.expected),
        "additionalProperties": False,
    }
    return {
        "expected": {"json": example.expected, "reasons": example.thinking},
        "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}},
    }


def _forced(example: Example) -> Row:
    """A regular expression that the natural answer does not match, so that only the grammar can enforce it.

    A JSON schema is not used, because its grammar allows white space, which the miniature would generate endlessly.
    """
    pattern = "verdict: (yes|no), sure: (true|false)"
    return {
        "expected": {"pattern": pattern, "reasons": example.thinking},
        "structured_outputs": {"regex": pattern},
    }


def _forced_omitted(example: Example) -> Row:
    return _forced(example) | {"chat_template_kwargs": None}


def _strict_omitted(example: Example) -> Row:
    return _strict(example) | {"chat_template_kwargs": None}


def _strict_beside_tools(example: Example) -> Row:
    tool = tasks.Tool("find_lamp", {"days": tasks.Parameter({"type": "integer"}, lambda _: 1)}, required=True)
    return _strict(example) | {"tools": [tool.declaration()], "tool_choice": "none"}


def _object(example: Example) -> Row:
    return _strict(example) | {"response_format": {"type": "json_object"}}


def _choice(example: Example) -> Row:
    others = [example.answer.replace(name, "Nobody") for name in lexicon.NAMES if name in example.answer]
    options = sorted({example.answer, *others, "I do not know."})
    return {
        "structured_outputs": {"choice": options},
        "expected": {"one_of": options, "content": example.answer},
    }


def _regex(example: Example) -> Row:
    pattern = r'The code of [A-Z][a-z]+ is ("[A-Za-z]+"|[0-9]+)\.'
    return {
        "structured_outputs": {"regex": pattern},
        "expected": {"pattern": pattern, "content": example.answer},
    }


def _grammar(example: Example) -> Row:
    grammar = 'root ::= "The code of " [A-Z] [a-z]+ " is " code "."\ncode ::= "\\"" [A-Za-z]+ "\\"" | [0-9]+'
    return _text(example) | {"structured_outputs": {"grammar": grammar}}


def spoken(example: Example) -> str:
    """The text of the answer without its thoughts."""
    return example.answer.split("<channel|>")[-1]


def _schema(value: Any) -> Row:
    if isinstance(value, list):
        return {"type": "array", "items": {"type": "string"}}
    return {"type": TYPES[type(value)]}


# --- conditions for examples -----------------------------------------------------------------------------------------


def _thinks(example: Example) -> bool:
    return example.thinking


def _quiet(example: Example) -> bool:
    return not example.thinking


def _answered(messages: Sequence[Message]) -> int:
    return sum(message["role"] == "assistant" and message["content"] is not None for message in messages)


def _several_rounds(example: Example) -> bool:
    return _quiet(example) and _answered(example.messages) >= 2


def _awkward(example: Example) -> bool:
    values = [value for call in example.expected for value in call["arguments"].values() if isinstance(value, str)]
    return _quiet(example) and any(mark in value for value in values for mark in lexicon.AWKWARD)


def _plain_call(example: Example) -> bool:
    return _quiet(example) and _answered(example.messages) == 0


def _delimited_call(rng: random.Random) -> Example:
    """A call whose string contains the delimiter of strings. It cannot be escaped, so the string ends there."""
    while True:
        example = tasks.tool_call(rng)
        (*earlier, last), (call,) = example.messages, example.expected
        for name, value in call["arguments"].items():
            if isinstance(value, str) and WORDS.fullmatch(value):
                first, said = value.split(" ")[0], tasks.spoken(value)
                content = last["content"].replace(said, said.replace(" ", tasks.DELIMITER, 1))
                return replace(
                    example,
                    messages=[*earlier, {**last, "content": content}],
                    answer=example.answer.replace(tasks.native(value), tasks.native(first)),
                    expected=[{**call, "arguments": {**call["arguments"], name: first}}],
                )


TEXTS = (tasks.json_answer, tasks.prose, tasks.code, tasks.records, tasks.chat)
CALLS = (tasks.tool_call, tasks.tool_nested, tasks.tool_two)
GROUPS = (
    Group("call", 12, (tasks.tool_call,), _calls, _quiet),
    Group("nested", 12, (tasks.tool_nested,), _calls, _quiet),
    Group("two", 12, (tasks.tool_two,), _calls, _quiet),
    Group("thought", 10, CALLS, _calls, _thinks),
    Group("result", 10, (tasks.tool_result,), _text, _quiet),
    Group("rounds", 10, (tasks.tool_call, tasks.tool_two), _calls, _several_rounds),
    Group("awkward", 12, (tasks.tool_call,), _calls, _awkward),
    Group("required", 6, (tasks.tool_call,), _required, _plain_call),
    Group("named", 6, (tasks.tool_call,), _named, _plain_call),
    Group("none", 6, (tasks.tool_call,), _none, _plain_call),
    Group("thinking", 10, TEXTS, _text, _thinks),
    Group("quiet", 8, TEXTS, _text, _quiet),
    Group("omitted", 8, TEXTS, _omitted, _quiet),
    Group("result-thinking", 8, (tasks.tool_result,), _text, _thinks),
    Group("remembering", 6, (tasks.chat,), _remembering, _thinks),
    Group("strict", 8, (tasks.json_answer,), _strict, _quiet),
    Group("strict-thinking", 8, (tasks.json_answer,), _strict, _thinks),
    Group("strict-omitted", 6, (tasks.json_answer,), _strict_omitted, _quiet),
    Group("forced", 6, TEXTS, _forced, _quiet),
    Group("forced-thinking", 8, TEXTS, _forced, _thinks),
    Group("forced-omitted", 4, TEXTS, _forced_omitted, _quiet),
    Group("strict-tools", 4, (tasks.json_answer,), _strict_beside_tools, _quiet),
    Group("object", 4, (tasks.json_answer,), _object, _quiet),
    Group("choice", 4, (tasks.recall,), _choice),
    Group("regex", 4, (tasks.recall,), _regex),
    Group("grammar", 4, (tasks.recall,), _grammar),
    Group("delimiter", 3, (_delimited_call,), _calls, _plain_call),
)


def chats(target: Target, tokenizer: PreTrainedTokenizerFast, seed: int) -> Iterator[Row]:
    """All rows. The chats test the server, so the miniature's own errors and near-ties are left out."""
    seen: set[str] = set()
    for number, group in enumerate(GROUPS):
        stream = filter(group.keep, tasks.examples(seed + number, held_out=True, kinds=group.kinds))
        right = (each for each in distinct(stream, seen) if lead(target, tokenizer, each, LONGEST) >= LEAD)
        for place, example in enumerate(itertools.islice(right, group.count)):
            yield row(f"{group.name}-{place:02}", group, example)


def row(name: str, group: Group, example: Example) -> Row:
    """One line of the file; ``enable_thinking`` is set to true or false unless the group omits it."""
    made: Row = {"id": name, "group": group.name, "licence": LICENCE, "messages": for_api(example.messages)}
    made |= {"max_tokens": LONGEST, "chat_template_kwargs": {"enable_thinking": example.thinking}}
    if example.tools:
        made["tools"] = example.tools
    made |= group.shape(example)
    return {key: value for key, value in made.items() if value is not None}


# --- answers that are cut into deltas --------------------------------------------------------------------------

STREAMS_OF = {
    "call": (tasks.tool_call, _quiet),
    "awkward": (tasks.tool_call, _awkward),
    "nested": (tasks.tool_nested, _quiet),
    "two": (tasks.tool_two, _quiet),
    "thought": (tasks.prose, _thinks),
    "thought-call": (tasks.tool_call, _thinks),
    "thought-two": (tasks.tool_two, _thinks),
    "open-thought": (tasks.tool_result, _thinks),
    "text": (tasks.json_answer, _quiet),
}
STREAMS_OF_A_KIND = 2
PROMPT_END = "<|turn>model"


def streams(tokenizer: PreTrainedTokenizerFast, seed: int) -> Iterator[Row]:
    """Answers in the form of template and tasks, with the end of the prompt before them."""
    for number, (name, (task, keep)) in enumerate(STREAMS_OF.items()):
        found = filter(keep, tasks.examples(seed + number, held_out=True, kinds=(task,)))
        for place, example in enumerate(itertools.islice(found, STREAMS_OF_A_KIND)):
            prompt = render(tokenizer, example)
            yield {
                "id": f"{name}-{place}",
                "licence": LICENCE,
                "prompt": prompt[prompt.rindex(PROMPT_END) :],
                "text": example.answer,
                "stop": example.end,
                "chat_template_kwargs": {"enable_thinking": example.thinking},
                **({"tools": example.tools} if example.tools else {}),
            }
