"""``python -m conformance.inside_vllm.parser_trials``: vLLM's parser of Gemma 4 against generated and recorded answers.

Standard input is JSON: ``tokenizer`` (a checkpoint's folder), ``template`` (the chat template), ``examples`` (how many
for each property), and the rows of ``conformance.workload.parser_cases``: ``streams``, ``instances``, ``suite`` and
``regressions``. The last line of standard output is JSON: for each property the number of examples, and the smallest
example that breaks it, which Hypothesis finds; for the properties of ``answer_trials`` every kind of finding. The work
is spread over several processes; ``seconds`` is the wall time of all of it, ``cpu_seconds`` the CPU time.

Hypothesis draws the same examples in every run, so that a verdict does not change from run to run.
"""

from __future__ import annotations

import functools
import gc
import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis
from hypothesis import strategies as st
from jinja2.sandbox import ImmutableSandboxedEnvironment

from conformance.errors import Unsupported
from conformance.formats.canonical_json import same_json
from conformance.inside_vllm import adapters
from conformance.inside_vllm.answer_trials import Answers
from conformance.inside_vllm.forked import Forked, Stopwatch
from conformance.inside_vllm.parsing import Asked, Gemma4, Parsed, as_json

TOOL = "set_values"
LIMIT_SECONDS = 2.0  # for an answer of at most a few hundred tokens
MARKS = ("<|channel>", "<channel|>", "<|tool_call>", "<tool_call|>", '<|"|>')
FRAGMENTS = (
    *MARKS,
    "thought\n",
    "call:",
    "call:set_values{",
    "a:",
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    '"',
    "3.",
    "-",
    "tru",
)
PARTS = 3  # of the streams, each in a process of its own
LONGEST_DELTA = 12  # a step yields at most k + 1 = 9 tokens; a stream interval adds some


class Counterexample(Exception):
    """An example breaks a property. The message is the example in JSON."""

    def __init__(self, example: dict[str, Any]) -> None:
        super().__init__(json.dumps(example))
        self.example = example


@contextmanager
def raising_breaks(**example: Any) -> Iterator[None]:
    """Turn any exception of the parser into a counterexample.

    Raises:
        Counterexample: the parser raised an exception.
    """
    try:
        yield
    except Exception as error:
        raise Counterexample({**example, "problem": f"{type(error).__name__}: {error}"}) from None


@dataclass(frozen=True)
class Stream:
    """A recorded answer: its text without the token that ended it, and the request as the parser knows it."""

    id: str
    text: str
    asked: Asked
    stop: int | None


# --- drawn examples ------------------------------------------------------------------------------------------

Typed = tuple[dict[str, Any], st.SearchStrategy[Any]]  # a schema and its values

KEYS = st.from_regex(r"[a-z][a-z0-9_]{0,7}", fullmatch=True)
WORDS = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="<|>"), max_size=12)
INTEGERS = st.integers(-(10**15), 10**15)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)


def scalars() -> st.SearchStrategy[Typed]:
    """A typed scalar."""
    kinds: list[Typed] = [
        ({"type": "string"}, WORDS),
        ({"type": "integer"}, INTEGERS),
        ({"type": "number"}, FLOATS),
        ({"type": "boolean"}, st.booleans()),
        ({"type": "null"}, st.none()),
    ]
    enums = st.lists(WORDS.filter(bool), min_size=1, max_size=3, unique=True).map(
        lambda options: ({"type": "string", "enum": options}, st.sampled_from(options))
    )
    return st.sampled_from(kinds) | enums


def nested() -> st.SearchStrategy[Typed]:
    """Arrays and objects of typed values, down to the third level."""

    def around(inner: st.SearchStrategy[Typed]) -> st.SearchStrategy[Typed]:
        arrays = inner.map(lambda item: ({"type": "array", "items": item[0]}, st.lists(item[1], max_size=3)))
        objects = st.dictionaries(KEYS, inner, max_size=3).map(_object)
        return arrays | objects

    return around(around(scalars()) | scalars())


def unions() -> st.SearchStrategy[Typed]:
    """A string, or null, an integer or a boolean: only its delimiters distinguish "null" from null."""
    others = {"null": st.none(), "integer": INTEGERS, "boolean": st.booleans()}
    words = WORDS | st.sampled_from(["null", "3", "true"])
    return st.sampled_from(list(others)).map(lambda kind: ({"type": ["string", kind]}, words | others[kind]))


def untyped() -> st.SearchStrategy[Typed]:
    """A number, boolean or null whose schema names no type."""
    return st.just(({"description": "anything"}, INTEGERS | st.booleans() | st.none()))


def _object(inside: dict[str, Typed]) -> Typed:
    schema = {"type": "object", "properties": {key: each[0] for key, each in inside.items()}}
    return schema, st.fixed_dictionaries({key: each[1] for key, each in inside.items()})


@st.composite
def calls(draw: st.DrawFn, values: st.SearchStrategy[Typed]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The schema of a tool's parameters, and matching arguments."""
    schema, arguments = _object(draw(st.dictionaries(KEYS, values, min_size=1, max_size=3)))
    return schema, draw(arguments)


def ends(count: int) -> st.SearchStrategy[list[int]]:
    """The positions at which the deltas of a stream end, in tokens."""
    sizes = st.lists(st.integers(1, LONGEST_DELTA), min_size=1, max_size=max(1, count))

    def cumulated(drawn: Sequence[int]) -> list[int]:
        places, reached = [], 0
        for size in drawn:
            reached += size
            if reached >= count:
                break
            places.append(reached)
        return [*places, count]

    return sizes.map(cumulated)


# --- the properties -----------------------------------------------------------------------------------------


class Trials:
    """Tests every property of one parser."""

    def __init__(self, parser: Gemma4, template: str, examples: int) -> None:
        self._parser, self._examples = parser, examples
        self._ends = functools.cache(self._draw_ends)
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        environment.globals["raise_exception"] = _refuse
        self._template = environment.from_string(template)

    def native(self, name: str, arguments: dict[str, Any]) -> str:
        """A call as the chat template writes it, and as the model was trained to write it."""
        call = {"id": "call_0", "type": "function", "function": {"name": name, "arguments": arguments}}
        messages = [{"role": "user", "content": "-"}, {"role": "assistant", "content": None, "tool_calls": [call]}]
        text = self._template.render(messages=messages, bos_token="", add_generation_prompt=False)
        begin, end = text.index("<|tool_call>"), text.rindex("<tool_call|>") + len("<tool_call|>")
        return text[begin:end]

    def round_trip(self, values: st.SearchStrategy[Typed], known: Sequence[Any]) -> dict[str, Any]:
        """Property: the parser returns the arguments that the template writes, with their types, whole and streamed.

        ``known`` are examples that broke the property before; they are tried first.
        """

        def holds(drawn: tuple[dict[str, Any], dict[str, Any]]) -> None:
            hypothesis.assume(self._comes_back(*drawn))

        earlier = [(example["schema"], example["expected"][0]["arguments"]) for example in known]
        return self._run(calls(values), holds, earlier)

    def published(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """The same property for published instances; instances that the tokenizer cannot encode do not count."""
        examples = 0
        for row in rows:
            try:
                examples += self._comes_back(row["parameters"], row["arguments"])
            except Counterexample as found:
                return {"examples": examples + 1, "counterexample": {**found.example, "id": row["id"]}}
        return {"examples": examples, "counterexample": None}

    def _comes_back(self, schema: dict[str, Any], arguments: dict[str, Any]) -> bool:
        """Whether the tokenizer can encode the call.

        Raises:
            Counterexample: the parser returns another call.
        """
        text = self.native(TOOL, arguments)
        ids = self._parser.encode(text)
        if self._parser.decode(ids) != text:
            return False
        expected = {"reasoning": "", "content": "", "calls": [{"name": TOOL, "arguments": arguments}]}
        example = {"schema": schema, "text": text, "expected": expected["calls"]}
        with raising_breaks(**example):
            ways = self._ways(Asked(tools=[_tool(TOOL, schema)]), ids)
        for way, parsed in ways:
            found = as_json(parsed)
            if not same_json(found, expected):
                raise Counterexample({**example, "way": way, "found": found})
        return True

    def chunking(self, stream: Stream) -> dict[str, Any]:
        """Property: an answer in deltas gives the same as the whole, whether cut once, at every token, or at random."""
        ids = self._parser.encode(stream.text)
        count, held = len(ids), set[tuple[int, ...]]()

        @functools.cache
        def whole() -> Any:
            return as_json(self._parser.whole(stream.asked, ids, stream.stop))

        def holds(cuts: list[int]) -> None:
            if tuple(cuts) in held:  # a third of what is drawn was drawn before
                return
            with raising_breaks(text=stream.text):
                expected = whole()
                found = as_json(self._parser.streamed(stream.asked, ids, cuts, stream.stop))
            if not same_json(found, expected):
                begins = [0, *cuts[:-1]]
                deltas = [self._parser.decode(ids[begin:end]) for begin, end in zip(begins, cuts, strict=True)]
                raise Counterexample({"deltas": deltas, "whole": expected, "found": found})
            held.add(tuple(cuts))

        every = [[cut, count] for cut in range(1, count)] + [list(range(1, count + 1)), [count]]
        for number, cuts in enumerate(every, 1):
            try:
                holds(cuts)
            except Counterexample as found:
                return {"examples": number, "counterexample": found.example}
        tried = self._try_ends(count, holds)
        return {**tried, "examples": tried["examples"] + len(every)}

    def _try_ends(self, count: int, holds: Callable[[list[int]], None]) -> dict[str, Any]:
        drawn = self._ends(count)
        try:
            for cuts in drawn:
                holds(cuts)
        except Counterexample as found:
            smallest = self._run(ends(count), holds)  # the same again, and then smaller ones
            return {**smallest, "counterexample": smallest["counterexample"] or found.example}  # if it broke only once
        return {"examples": len(drawn), "counterexample": None}

    def _draw_ends(self, count: int) -> list[list[int]]:
        """What Hypothesis draws for an answer of so many tokens, as long as no example breaks the property."""
        drawn: list[list[int]] = []
        self._run(ends(count), drawn.append)
        return drawn

    def parts_of(self, streams: Sequence[Stream]) -> list[list[Stream]]:
        """The answers in ``PARTS`` parts. Those of one length stay together: their cuts are drawn once."""
        by_length = defaultdict(list)
        for stream in streams:
            by_length[len(self._parser.encode(stream.text))].append(stream)
        together = list(by_length.values())
        return [[stream for same in together[first::PARTS] for stream in same] for first in range(PARTS)]

    def chunking_of(self, streams: Sequence[Stream]) -> dict[str, dict[str, Any]]:
        """The property for several answers, by their ids."""
        return {stream.id: self.chunking(stream) for stream in streams}

    def any_text(self, known: Sequence[Any]) -> dict[str, Any]:
        """Property: no text makes the parser raise, take too long, or return text that is not in it."""
        texts = st.lists(st.sampled_from(FRAGMENTS) | WORDS, max_size=14).map("".join)
        asked = Asked(tools=[_tool(TOOL, {"type": "object", "properties": {"a": {"type": "integer"}}})])

        def holds(text: str) -> None:
            ids = self._parser.encode(text)
            hypothesis.assume(ids)
            said = self._parser.decode(ids)
            begin = time.process_time()  # other processes must not make the parser look slow
            with raising_breaks(text=said):
                ways = self._ways(asked, ids)
            seconds = time.process_time() - begin
            if seconds > LIMIT_SECONDS:
                raise Counterexample({"text": said, "problem": f"parsing took {seconds:.1f} s"})
            for way, parsed in ways:
                if problem := _invented(parsed, said):
                    raise Counterexample({"text": said, "way": way, "problem": problem})

        return self._run(texts, holds, [example["text"] for example in known])

    def _ways(self, asked: Asked, ids: Sequence[int]) -> list[tuple[str, Parsed]]:
        singly = list(range(1, len(ids) + 1))
        return [
            ("whole", self._parser.whole(asked, ids)),
            ("token by token", self._parser.streamed(asked, ids, singly)),
        ]

    def _run(
        self, drawn: st.SearchStrategy[Any], holds: Callable[[Any], None], known: Sequence[Any] = ()
    ) -> dict[str, Any]:
        examples = 0

        def counted(example: Any) -> None:
            nonlocal examples
            examples += 1
            holds(example)

        settings = hypothesis.settings(
            max_examples=self._examples,
            database=None,
            deadline=None,
            derandomize=True,
            report_multiple_bugs=False,
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        test = hypothesis.given(drawn)(counted)
        for example in known:
            test = hypothesis.example(example)(test)
        try:
            settings(test)()
        except Counterexample as found:
            return {"examples": examples, "counterexample": found.example}
        except hypothesis.errors.FlakyFailure as flaky:  # an example that broke the property only once
            first = next(each for each in flaky.exceptions if isinstance(each, Counterexample))
            return {"examples": examples, "counterexample": first.example}
        return {"examples": examples, "counterexample": None}


def _tool(name: str, parameters: dict[str, Any]) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "description": name, "parameters": parameters}}


def _invented(parsed: Parsed, text: str) -> str:
    """A part of the answer that is not in the text, as a sentence; empty if there is none."""
    for part in ("reasoning", "content"):
        if not _is_subsequence(getattr(parsed, part), text):
            return f"{part} {getattr(parsed, part)!r} is not in the text"
    for call in parsed.calls:
        if call["name"] not in text:
            return f"a call of {call['name']!r}, which is not in the text"
        if call["arguments"]:
            try:
                json.loads(call["arguments"])
            except ValueError:
                return f"arguments that are not JSON: {call['arguments']!r}"
    return ""


def _is_subsequence(part: str, whole: str) -> bool:
    rest = iter(whole)
    return all(letter in rest for letter in part)


def _refuse(message: str) -> None:
    raise ValueError(message)


def prepare_forks() -> None:
    """Do once what every forked process would do again.

    At its first example Hypothesis reads its tables and the constants of the suite, and collects garbage twice. Later
    collections leave out frozen objects: they would go through all of vLLM, and copy its memory into each process.
    """
    few = hypothesis.settings(max_examples=1, database=None, derandomize=True)
    few(hypothesis.given(st.tuples(KEYS, WORDS, INTEGERS, FLOATS))(lambda _drawn: None))()
    gc.freeze()


def main() -> None:
    """Test every property on the input."""
    stopwatch, asked = Stopwatch(), json.load(sys.stdin)
    try:
        parser = Gemma4(Path(asked["tokenizer"]))
    except Unsupported as reason:
        print(json.dumps({"unsupported": str(reason)}))
        return
    trials = Trials(parser, asked["template"], asked["examples"])
    kinds = {"scalars": scalars(), "nested": nested(), "unions": unions(), "untyped": untyped()}
    known = defaultdict(list)
    for row in asked["regressions"]:
        known[row["property"]].append(row["example"])
    answers = Answers(parser, trials.native)
    prepare_forks()
    names = list(answers.judges)
    answered = [Forked(functools.partial(answers.run, asked, asked["examples"], [name])) for name in names]
    streams = [
        Stream(
            row["id"],
            row["text"],
            Asked(row["tools"], row["chat_template_kwargs"], parser.encode(row["prompt"])),
            parser.encode(row["stop"])[0],
        )
        for row in asked["streams"]
    ]
    chunked = [Forked(functools.partial(trials.chunking_of, part)) for part in trials.parts_of(streams)]
    found = {
        "vllm_version": adapters.vllm_version(),
        "round_trip": {name: trials.round_trip(values, known[name]) for name, values in kinds.items()},
        "published": trials.published(asked["instances"]),
        "any_text": trials.any_text(known["any_text"]),
    }
    found["chunking"] = _in_order([stream.id for stream in streams], chunked)
    found["answers"] = _in_order(names, answered)
    print(json.dumps(found | stopwatch.as_json()))


def _in_order(names: Sequence[str], parts: Sequence[Forked]) -> dict[str, Any]:
    """The results of all parts by name."""
    results = {name: each for part in parts for name, each in part.result().items()}
    return {name: results[name] for name in names}


if __name__ == "__main__":
    main()
