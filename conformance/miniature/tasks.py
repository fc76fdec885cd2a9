"""What the miniature is taught, and examined on: chats with exactly one right answer, and three kinds of content.

Every task is a pure function of a random generator. A held-out example is one whose hash says so: training
skips those, evaluation and the shipped prompts use only those, so each is a combination never trained on.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from conformance.miniature import lexicon as lex

Message = dict[str, Any]
Call = tuple[str, dict[str, Any]]
DELIMITER = '<|"|>'  # delimits strings in Gemma 4's own syntax, which cannot escape it


@dataclass(frozen=True)
class Example:
    """One chat and its only right continuation in Gemma 4's native syntax.

    ``answer`` is what the model must write after the generation prompt, without the closing token ``end``.
    ``expected`` is what a client must get back: a list of calls, a JSON value or a text.
    """

    kind: str
    messages: list[Message]
    answer: str
    tools: list[Message] = field(default_factory=list)
    thinking: bool = False
    end: str = "<turn|>"
    expected: Any = None

    @property
    def held_out(self) -> bool:
        digest = hashlib.sha256(json.dumps(self.messages).encode()).digest()
        return digest[0] < 16


# --- values and their two spellings -------------------------------------------------------------------------


def native(value: Any) -> str:
    """A JSON value in Gemma 4's own argument syntax (as the chat template writes it)."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f"{DELIMITER}{value}{DELIMITER}"
    if isinstance(value, list):
        return "[" + ",".join(native(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{native(value[key])}" for key in _sorted(value)) + "}"
    return str(value)


def spoken(value: Any) -> str:
    """The same value as a user writes it; strings are in quotes, or in guillemets if they contain a quote."""
    if isinstance(value, str):
        return f"«{value}»" if '"' in value else f'"{value}"'
    if isinstance(value, list):
        return "[" + ",".join(spoken(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{spoken(value[key])}" for key in _sorted(value)) + "}"
    return native(value)


def _sorted(mapping: dict[str, Any]) -> list[str]:
    return sorted(mapping, key=str.lower)


def _number(rng: random.Random) -> int:
    return rng.choice((rng.randint(0, 9), rng.randint(10, 99), rng.randint(100, 9999), -rng.randint(1, 99)))


def _float(rng: random.Random) -> float:
    return rng.randint(-99, 999) / rng.choice((2, 4, 10))


def _awkward(rng: random.Random) -> str:
    """A string that is hard to parse: punctuation, braces, quotes, other scripts, emoji."""
    words = [rng.choice(lex.AWKWARD) if rng.random() < 0.6 else rng.choice(lex.WORDS) for _ in range(rng.randint(2, 5))]
    return rng.choice(("", " ")).join(words).strip() or "-"


def _string(rng: random.Random) -> str:
    if rng.random() < 0.06:
        return _awkward(rng)
    return " ".join(rng.choice(lex.WORDS) for _ in range(rng.choice((1, 1, 1, 2, 3))))


@dataclass(frozen=True)
class Parameter:
    """A parameter of an invented tool: its schema and how to draw a value."""

    schema: dict[str, Any]
    draw: Callable[[random.Random], Any]


def _scalar_parameter(rng: random.Random) -> Parameter:
    kind = rng.choice(("string", "string", "string", "integer", "integer", "number", "boolean", "enum"))
    if kind == "enum":
        options = rng.sample(lex.WORDS, 3)
        return Parameter({"type": "string", "enum": options}, lambda r: r.choice(options))
    draws: dict[str, Callable[[random.Random], Any]] = {
        "string": _string,
        "integer": _number,
        "number": _float,
        "boolean": lambda r: r.random() < 0.5,
    }
    return Parameter({"type": kind}, draws[kind])


def _nested_parameter(rng: random.Random) -> Parameter:
    if rng.random() < 0.5:
        inner = _scalar_parameter(rng)
        return Parameter(
            {"type": "array", "items": inner.schema}, lambda r: [inner.draw(r) for _ in range(r.randint(0, 3))]
        )
    inside = {name: _scalar_parameter(rng) for name in rng.sample(lex.KEYS, rng.randint(1, 3))}
    schema = {"type": "object", "properties": {name: inside[name].schema for name in inside}}
    return Parameter(schema, lambda r: {name: inside[name].draw(r) for name in _sorted(inside)})


@dataclass(frozen=True)
class Tool:
    """An invented tool: the OpenAI declaration and its parameters."""

    name: str
    parameters: dict[str, Parameter]
    required: bool

    def declaration(self) -> Message:
        properties = {key: self.parameters[key].schema for key in _sorted(self.parameters)}
        schema: dict[str, Any] = {"type": "object", "properties": properties}
        if self.required:
            schema["required"] = list(properties)
        function = {"name": self.name, "description": self.name.replace("_", " ") + ".", "parameters": schema}
        return {"type": "function", "function": function}

    def draw(self, rng: random.Random) -> dict[str, Any]:
        return {key: self.parameters[key].draw(rng) for key in _sorted(self.parameters)}


def _tool(rng: random.Random, nested: bool = False) -> Tool:
    keys = rng.sample(lex.KEYS, rng.choice((1, 2, 2, 3)))
    parameters = {key: _scalar_parameter(rng) for key in keys}
    if nested:
        parameters[keys[0]] = _nested_parameter(rng)
    return Tool(f"{rng.choice(lex.VERBS)}_{rng.choice(lex.NOUNS)}", parameters, rng.random() < 0.4)


def _tools(rng: random.Random, count: int, nested: bool = False) -> list[Tool]:
    tools = {tool.name: tool for tool in (_tool(rng, nested) for _ in range(count))}
    return list(tools.values())


def _request(rng: random.Random, tool: Tool, arguments: dict[str, Any]) -> str:
    keys = list(arguments)
    if rng.random() < 0.3:
        rng.shuffle(keys)
    return f"{tool.name} with " + ", ".join(f"{key} {spoken(arguments[key])}" for key in keys)


def native_call(name: str, arguments: dict[str, Any]) -> str:
    """One call as the model writes it."""
    return f"<|tool_call>call:{name}{native(arguments)}<tool_call|>"


def _assistant(calls: list[Call]) -> Message:
    """The turn with the calls; their arguments are mappings here, but JSON text in the API."""
    made = [
        {"id": f"call_{index}", "type": "function", "function": {"name": name, "arguments": arguments}}
        for index, (name, arguments) in enumerate(calls)
    ]
    return {"role": "assistant", "content": None, "tool_calls": made}


def user(text: str) -> Message:
    """A user's message."""
    return {"role": "user", "content": text}


def thought(text: str) -> str:
    """A thought channel as the model writes it."""
    return f"<|channel>thought\n{text}\n<channel|>"


# --- the tasks ----------------------------------------------------------------------------------------------


def _asked(rng: random.Random, tools: list[Tool], count: int) -> tuple[str, list[Call]]:
    """A user's request for some calls, and these calls."""
    chosen = [rng.choice(tools) for _ in range(count)]
    calls = [(tool.name, tool.draw(rng)) for tool in chosen]
    requests = [_request(rng, tool, call[1]) for tool, call in zip(chosen, calls, strict=True)]
    return f"Call {' and '.join(requests)}.", calls


def _round(rng: random.Random, tools: list[Tool]) -> tuple[list[Message], str]:
    """A request, its calls and results, and the answer that repeats the results."""
    text, calls = _asked(rng, tools, rng.choice((1, 1, 1, 2)))
    messages, answers = [user(text), _assistant(calls)], []
    for index in range(len(calls)):
        result = {key: _scalar_parameter(rng).draw(rng) for key in rng.sample(lex.KEYS, rng.choice((1, 1, 2, 3)))}
        body = json.dumps(result, ensure_ascii=False, separators=(",", ":"))
        messages.append({"role": "tool", "tool_call_id": f"call_{index}", "content": body})
        answers += [f"{key} is {json.dumps(value, ensure_ascii=False)}" for key, value in result.items()]
    return messages, ", ".join(answers) + "."


def _history(rng: random.Random, tools: list[Tool]) -> list[Message]:
    """No, one or two earlier rounds with the same tools."""
    history: list[Message] = []
    for _ in range(rng.choice((0, 0, 1, 2))):
        messages, answer = _round(rng, tools)
        history += [*messages, {"role": "assistant", "content": answer}]
    return history


def _calls(rng: random.Random, kind: str, count: int, nested: bool) -> Example:
    tools = _tools(rng, rng.choice((1, 1, 2, 3)), nested)
    messages = _history(rng, tools)
    text, calls = _asked(rng, tools, count)
    thinking = rng.random() < 0.2
    answer = "".join(native_call(*call) for call in calls)
    if thinking:
        answer = thought("I call " + " and ".join(call[0] for call in calls) + ".") + answer
    expected = [{"name": name, "arguments": arguments} for name, arguments in calls]
    declared = [tool.declaration() for tool in tools]
    return Example(kind, [*messages, user(text)], answer, declared, thinking, "<|tool_response>", expected)


def tool_call(rng: random.Random) -> Example:
    """One call with scalar arguments."""
    return _calls(rng, "tool_call", 1, nested=False)


def tool_nested(rng: random.Random) -> Example:
    """One call with an array or an object among its arguments."""
    return _calls(rng, "tool_nested", 1, nested=True)


def tool_two(rng: random.Random) -> Example:
    """Two calls in one turn."""
    return _calls(rng, "tool_two", 2, nested=rng.random() < 0.2)


def tool_result(rng: random.Random) -> Example:
    """A call, its result, and an answer that repeats the result."""
    tools = _tools(rng, rng.choice((1, 1, 2)))
    history = _history(rng, tools)
    messages, answer = _round(rng, tools)
    thinking = rng.random() < 0.2
    # With thinking on, the template leaves the channel open after a result, so the text of the thought comes first.
    text = "I have the result.\n<channel|>" + answer if thinking else answer
    declared = [tool.declaration() for tool in tools]
    return Example("tool_result", [*history, *messages], text, declared, thinking, expected=answer)


def json_answer(rng: random.Random) -> Example:
    """A JSON object with given keys and values."""
    fields = {key: _scalar_parameter(rng).draw(rng) for key in rng.sample(lex.KEYS, rng.randint(2, 4))}
    if rng.random() < 0.4:
        fields[rng.choice(lex.KEYS)] = [_string(rng) for _ in range(rng.randint(1, 3))]
    asked = ", ".join(f"{key} {spoken(value)}" for key, value in fields.items())
    text = json.dumps(fields, ensure_ascii=False, separators=(",", ":"))
    return _plain("json_answer", rng, f"Give JSON with {asked}.", text, "I write JSON.", expected=fields)


def recall(rng: random.Random) -> Example:
    """Facts, then more filler than fits into the sliding window, then questions about the facts."""
    owners = rng.sample(lex.NAMES, rng.choice((1, 2, 3, 4)))
    secrets = [rng.choice((str(rng.randint(100, 9999)), f'"{rng.choice(lex.WORDS)}"')) for _ in owners]
    facts = [f"The code of {owner} is {secret}." for owner, secret in zip(owners, secrets, strict=True)]
    topics = lex.TOPICS["en"]
    filler = [tale_sentence(rng, "en", rng.choice(topics), rng.randint(0, 7)) for _ in range(rng.randint(8, 16))]
    asked = [rng.randrange(len(owners)) for _ in range(rng.choice((1, 2, 3)))]
    questions = [f"What is the code of {owners[index]}?" for index in asked]
    story = " ".join(facts + filler)
    messages: list[Message] = [{"role": "system", "content": story}, user(questions[0])]
    if rng.random() < 0.5:
        messages = [user(f"{story} {questions[0]}")]
    for index, question in zip(asked, questions[1:], strict=False):
        messages += [{"role": "assistant", "content": facts[index]}, user(question)]
    answer = facts[asked[-1]]
    return Example("recall", messages, answer, expected=answer)


def _plain(kind: str, rng: random.Random, asked: str, text: str, idea: str, expected: Any = None) -> Example:
    thinking = rng.random() < 0.15
    return Example(
        kind, [user(asked)], (thought(idea) if thinking else "") + text, thinking=thinking, expected=expected
    )


# --- three kinds of content: each slot has one most likely word, which follows from the words before it ----------


def _pick(rng: random.Random, likely: float, options: tuple[str, ...], *context: object) -> str:
    """The preferred option of this context with probability ``likely``, else any other option."""
    favourite = hashlib.sha256(repr(context).encode()).digest()[0] % len(options)
    return options[favourite] if rng.random() < likely else rng.choice(options)


def tale_sentence(rng: random.Random, language: str, topic: str, index: int) -> str:
    """The index-th sentence of a tale about a topic."""
    words = lex.TALE[language]
    verb = _pick(rng, 0.6, words["verbs"], topic, index)
    thing = _pick(rng, 0.6, words["things"], verb, index % 2)
    place = _pick(rng, 0.6, words["places"], thing)
    return words["pattern"].format(opener=words["openers"][index], topic=topic, verb=verb, thing=thing, place=place)


def prose(rng: random.Random) -> Example:
    """A tale in one of three languages: high entropy."""
    language = rng.choice(("en", "en", "de", "es"))
    topic = rng.choice(lex.TOPICS[language])
    count = rng.randint(2, 8)
    text = " ".join(tale_sentence(rng, language, topic, index) for index in range(count))
    return _plain("prose", rng, lex.TALE[language]["ask"].format(n=count, topic=topic), text, "I tell a tale.")


def code(rng: random.Random) -> Example:
    """A small Python function: middling entropy."""
    verb, noun = rng.choice(lex.VERBS), rng.choice(lex.NOUNS)
    first, second = rng.sample(lex.KEYS, 2)
    operator = _pick(rng, 0.85, ("+", "-", "*", "/"), verb)
    comparison = _pick(rng, 0.85, (">", "<", "==", "!="), noun)
    result = _pick(rng, 0.85, ("total", "result", "value"), verb, noun[0])
    text = (
        f"def {verb}_{noun}({first}, {second}):\n    {result} = {first} {operator} {second}\n"
        f"    if {result} {comparison} {first}:\n        return {second}\n    return {result}"
    )
    return _plain("code", rng, f"Write {verb}_{noun} of {first} and {second} in Python.", text, "I write code.")


def records(rng: random.Random) -> Example:
    """A JSON list of records: low entropy."""
    item, count = rng.choice(lex.NOUNS), rng.randint(2, 5)
    rows = [
        {
            "id": index + 1,
            "item": item,
            "color": _pick(rng, 0.95, lex.COLORS, item, index),
            "stock": _pick(rng, 0.95, ("low", "full", "none"), item[0], index),
        }
        for index in range(count)
    ]
    text = "[" + ",".join(json.dumps(row, separators=(",", ":")) for row in rows) + "]"
    return _plain("records", rng, f"List {count} records of {item} as JSON.", text, "I list records.")


def chat(rng: random.Random) -> Example:
    """A second question after an answered one; only the last turn counts."""
    before, after = (rng.choice((json_answer, prose, code, records))(rng) for _ in range(2))
    said = before.answer.split("<channel|>")[-1]
    messages = [*before.messages, {"role": "assistant", "content": said}, *after.messages]
    return Example("chat_" + after.kind, messages, after.answer, thinking=after.thinking, expected=after.expected)


Task = Callable[[random.Random], Example]
GIVE_UP = 10_000  # so many unsuitable examples in a row

CURRICULUM: dict[Task, float] = {
    tool_call: 0.18,
    tool_nested: 0.16,
    tool_two: 0.16,
    tool_result: 0.10,
    json_answer: 0.10,
    recall: 0.14,
    prose: 0.06,
    code: 0.03,
    records: 0.02,
    chat: 0.05,
}


def examples(seed: int, held_out: bool, kinds: tuple[Task, ...] = ()) -> Iterator[Example]:
    """An endless stream of examples: either all of them are held out from training, or none is.

    Raises:
        ValueError: the tasks have so few different examples that none is suitable.
    """
    rng, refused = random.Random(seed), 0
    tasks = list(kinds or CURRICULUM)
    weights = [CURRICULUM.get(task, 1.0) for task in tasks]
    while True:
        example = rng.choices(tasks, weights)[0](rng)
        if example.held_out is held_out:
            refused = 0
            yield example
        elif (refused := refused + 1) == GIVE_UP:
            raise ValueError(f"{', '.join(task.__name__ for task in tasks)}: no example is held_out={held_out}")
