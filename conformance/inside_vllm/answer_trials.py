"""What the world sends to a parser: every drawn answer is judged, and every kind of finding is kept with an example.

Other than in ``parser_trials``, a property does not end at its first counterexample. A parser may have several defects
at once, and a new one must show beside a known one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import hypothesis
from hypothesis import strategies as st

from conformance.formats.gemma4_calls import CALL, CALL_END, Call, NotNative, read_call
from conformance.inside_vllm.parser_findings import (
    CHANGED,
    REFUSED,
    Delivered,
    Wrong,
    wrong_answer,
    wrong_cut,
    wrong_native,
)
from conformance.inside_vllm.parser_input import near_native, odd_names, thinking_cases, tool_schemas
from conformance.inside_vllm.parsing import Asked, Parsed, as_json
from conformance.inside_vllm.schema_routes import route

TOOL = "set_values"
SIZES = st.lists(st.integers(1, 12), min_size=1, max_size=6)  # of deltas in tokens, again and again
ONE_TYPE = "declared types"  # the cause where the schema gives each value one type
Causes = tuple[str, ...]
Given = Mapping[str, Any]  # the input of a judge as JSON: with it an example can be tried again


class Parser(Protocol):
    """What the trials ask of a parser; ``parsing.Gemma4`` is vLLM's."""

    def encode(self, text: str) -> list[int]: ...
    def decode(self, ids: Sequence[int]) -> str: ...
    def whole(self, asked: Asked, ids: Sequence[int]) -> Parsed: ...
    def streamed(self, asked: Asked, ids: Sequence[int], ends: Sequence[int]) -> Parsed: ...


@dataclass(frozen=True)
class Judged:
    """A judged answer: what is wrong and its causes, and the example as the evidence holds it."""

    wrong: tuple[tuple[str, Causes], ...]
    example: Mapping[str, Any]
    tried: bool = True  # False if the tokenizer cannot encode the answer


@dataclass
class Kinds:
    """The kinds of findings of one property, each with its number of answers and its smallest example."""

    examples: int = 0
    refused: int = 0
    found: dict[tuple[str, Causes], dict[str, Any]] = field(default_factory=dict)

    def add(self, judged: Judged) -> None:
        """Count a judged answer."""
        self.examples += judged.tried
        self.refused += any(harm == REFUSED for harm, _ in judged.wrong)
        for harm, causes in set(judged.wrong):
            known = self.found.setdefault((harm, causes), {"answers": 0, "example": judged.example})
            known["answers"] += 1
            if _size(judged.example) < _size(known["example"]):
                known["example"] = judged.example

    def as_json(self, may_refuse: bool) -> dict[str, Any]:
        """The kinds by name; several causes of one finding count for the first of them that is a kind of its own."""
        alone = {key for key in self.found if len(key[1]) <= 1}
        rows: dict[str, dict[str, Any]] = {}
        for (harm, causes), each in sorted(self.found.items(), key=lambda item: len(item[0][1])):
            if may_refuse and harm == REFUSED:
                continue
            cause = next((cause for cause in causes if (harm, (cause,)) in alone), " with ".join(causes) or ONE_TYPE)
            row = rows.setdefault(f"{harm}: {cause}", {"answers": 0, "example": each["example"]})
            row["answers"] += each["answers"]
        kinds = [{"kind": kind, **row} for kind, row in sorted(rows.items())]
        return {"examples": self.examples, "refused": self.refused, "kinds": kinds}


def _size(example: Mapping[str, Any]) -> int:
    return len(example["text"]) + len(json.dumps(example["given"]))


class Answers:
    """Tries every property on one parser."""

    def __init__(self, parser: Parser, native: Callable[[str, dict[str, Any]], str], seed: int | None = None) -> None:
        """``native`` writes a call as the chat template does. With a ``seed`` other examples are drawn."""
        self._parser, self._native, self._seed = parser, native, seed
        self._judges: dict[str, Callable[[Given], Judged]] = {
            "schemas": self.judge_arguments,
            "suite": self.judge_arguments,
            "names": self.judge_arguments,
            "near_native": self.judge_near_native,
            "cut": self.judge_cut,
            "thinking": self.judge_thinking,
        }

    def run(self, asked: Mapping[str, Any], examples: int, names: Collection[str] = ()) -> dict[str, Any]:
        """The result of every property, or of those with these names.

        ``asked`` has the rows of ``workload.parser_cases``: streams, suite, regressions; and the chat template. With
        ``shrink``, Hypothesis looks for the smallest example of each new kind, which takes minutes.
        """
        render = thinking_cases.renderer(asked["template"])
        listed: dict[str, Iterator[Given]] = {
            "suite": ({"schema": row["parameters"], "arguments": row["arguments"]} for row in asked["suite"]),
            "cut": (given for stream in asked["streams"] for given in self._prefixes(stream)),
            "thinking": iter(thinking_cases.cases(render)),
        }
        drawn = {"schemas": _schemas(), "names": _names(), "near_native": _near_native(), "cut": self._cuts()}
        found = {}
        for name, judge in self._judges.items():
            if names and name not in names:
                continue
            kinds = Kinds()
            known = [row["example"]["given"] for row in asked["regressions"] if row["property"] == name]
            for given in (*known, *listed.get(name, ())):
                kinds.add(judge(given))
            if name in drawn:
                self._draw(drawn[name], judge, kinds, examples)
                if asked.get("shrink"):
                    self._shrink(drawn[name], judge, kinds, known)
            found[name] = kinds.as_json(may_refuse=name == "near_native")
        return found

    def judge_arguments(self, given: Given) -> Judged:
        """A call as the template writes it comes back unchanged: its name, and every value with its type."""
        call = Call(given.get("name", TOOL), given["arguments"])
        text = self._native(call.name, call.arguments)
        try:
            readable = read_call(text.removeprefix(CALL).removesuffix(CALL_END)) == call
        except NotNative:
            readable = False
        asked = Asked(tools=[_tool(call.name, given["schema"])])
        if not readable:  # the syntax has no escape: nobody can say what this text means
            return Judged((), {"text": text, "given": given}, tried=False)

        def causes(wrong: Wrong) -> Causes:
            if "cause" in given:
                return (given["cause"],)
            return route(given["schema"], wrong.path) if wrong.path else ("whole call",)

        def wrong_in(delivered: Delivered) -> list[tuple[str, Causes]]:
            return [(each.harm, causes(each)) for each in wrong_native(call, delivered)]

        return self._judge(text, asked, given, wrong_in, _calls_as_json([call]))

    def judge_near_native(self, given: Given) -> Judged:
        """A near-native answer gives the calls that it means, or its text stays visible."""
        calls = [Call(**each) for each in given["calls"]]
        answer = near_native.FORMS[given["form"]](calls)
        asked = Asked(tools=[_tool(each["name"], each["parameters"]) for each in given["tools"]])

        def wrong_in(delivered: Delivered) -> list[tuple[str, Causes]]:
            return [(each.harm, (given["form"],)) for each in wrong_answer(answer, delivered)]

        return self._judge(answer.text, asked, given, wrong_in, _calls_as_json(meaning[0] for meaning in answer.calls))

    def judge_cut(self, given: Given) -> Judged:
        """An answer that ends before its end gives no finished call of a part."""
        asked = Asked(given["tools"], given["chat_template_kwargs"], self._parser.encode(given["prompt"]))
        ids = self._parser.encode(given["text"])
        text = self._parser.decode(ids[: given["tokens"]])
        parts = [part.split(CALL_END)[0] for part in given["text"].split(CALL)[1:]]
        intended, ended = [read_call(part) for part in parts], text.count(CALL_END)
        unfinished = text.count(CALL) > ended
        cut = intended[ended] if unfinished else None
        tail = text.rpartition(CALL)[2] if unfinished else ""

        def wrong_in(delivered: Delivered) -> list[tuple[str, Causes]]:
            found = wrong_cut(intended[:ended], cut, tail, delivered)
            return [(wrong.harm, (cause,)) for cause, wrong in found]

        return self._judge(text, asked, given, wrong_in, _calls_as_json(intended[:ended]))

    def judge_thinking(self, given: Given) -> Judged:
        """Thoughts, text and calls are where they belong, with a channel and without, and in every delivery alike."""
        asked = Asked(given["tools"], given["chat_template_kwargs"], self._parser.encode(given["prompt"]))

        def wrong_in(delivered: Delivered) -> list[tuple[str, Causes]]:
            return [(each.harm, (given["cause"],)) for each in thinking_cases.wrong(given, delivered)]

        return self._judge(given["text"], asked, given, wrong_in, given["expected"])

    def _judge(
        self,
        text: str,
        asked: Asked,
        given: Given,
        wrong_in: Callable[[Delivered], list[tuple[str, Causes]]],
        expected: Any,
    ) -> Judged:
        """Judge the answer in one piece and in deltas; if both are right, they must also be alike."""
        example = {"text": text, "given": given, "expected": expected}
        ids = self._parser.encode(text)
        if not ids or self._parser.decode(ids) != text:
            return Judged((), example, tried=False)
        seen: list[tuple[str, Delivered]] = []
        for way, deliver in self._ways(asked, ids, given.get("sizes", [1])):
            try:
                delivered = as_json(deliver())
            except Exception as error:
                found = f"{type(error).__name__}: {error}"
                return Judged(
                    ((CHANGED, (f"raises {type(error).__name__}",)),), {**example, "way": way, "found": found}
                )
            wrong = wrong_in(delivered)
            if any(harm != REFUSED for harm, _ in wrong):
                return Judged(tuple(wrong), {**example, "way": way, "found": delivered})
            seen.append((way, delivered))
        (_, whole), *others = seen
        for way, other in others:
            if _differ(whole, other):
                what = given.get("cause") or given.get("form") or ("whole call" if "schema" in given else "cut answer")
                cause = (f"{what}, deliveries differ",)
                return Judged(((CHANGED, cause),), {**example, "expected": whole, "way": way, "found": other})
        refused = tuple((REFUSED, causes) for _, causes in wrong)
        return Judged(refused, {**example, "way": "whole", "found": whole})

    def _ways(
        self, asked: Asked, ids: Sequence[int], sizes: Sequence[int]
    ) -> Iterator[tuple[str, Callable[[], Parsed]]]:
        yield "whole", lambda: self._parser.whole(asked, ids)
        yield (
            f"in deltas of {', '.join(map(str, sizes))} tokens",
            lambda: self._parser.streamed(asked, ids, ends_of(sizes, len(ids))),
        )

    def _prefixes(self, stream: Mapping[str, Any]) -> Iterator[Given]:
        ids = self._parser.encode(stream["text"])
        keys = ("text", "prompt", "tools", "chat_template_kwargs")
        for tokens in range(1, len(ids)):
            yield {**{key: stream[key] for key in keys}, "tokens": tokens, "sizes": [1 + tokens % 7]}

    def _cuts(self) -> st.SearchStrategy[Given]:
        """A call in the template's form, cut after any token."""

        @st.composite
        def cuts(draw: st.DrawFn) -> Given:
            tools, calls = draw(near_native.calls())
            text = "".join(self._native(call.name, call.arguments) for call in calls)
            return {
                "text": text,
                "prompt": "",
                "tools": [_tool(each["name"], each["parameters"]) for each in tools],
                "chat_template_kwargs": {},
                "tokens": draw(st.integers(1, len(self._parser.encode(text)) - 1)),
                "sizes": draw(SIZES),
            }

        return cuts()

    def _draw(
        self, drawn: st.SearchStrategy[Given], judge: Callable[[Given], Judged], kinds: Kinds, examples: int
    ) -> None:
        test = hypothesis.given(drawn)(lambda given: kinds.add(judge(given)))
        if self._seed is not None:
            test = hypothesis.seed(self._seed)(test)
        _settings(examples, derandomize=self._seed is None)(test)()

    def _shrink(
        self, drawn: st.SearchStrategy[Given], judge: Callable[[Given], Judged], kinds: Kinds, known: Sequence[Given]
    ) -> None:
        """Replace the example of each kind that no earlier run has kept by the smallest one that Hypothesis finds."""
        kept = {each for given in known for each in judge(given).wrong}
        for key in self.found_to_shrink(kinds, kept):
            try:
                smallest = hypothesis.find(
                    drawn,
                    lambda given, key=key: key in judge(given).wrong,  # type: ignore[misc]
                    settings=_settings(300, derandomize=True),
                )
            except hypothesis.errors.NoSuchExample:
                continue
            kinds.found[key]["example"] = judge(smallest).example

    @staticmethod
    def found_to_shrink(kinds: Kinds, kept: set[tuple[str, Causes]]) -> list[tuple[str, Causes]]:
        """The findings with one cause that no earlier run has kept, except refusals."""
        return [key for key in kinds.found if key not in kept and len(key[1]) <= 1 and key[0] != REFUSED]


def ends_of(sizes: Sequence[int], count: int) -> list[int]:
    """The positions where deltas of these sizes end, again and again, the last after all tokens."""
    places, reached, number = [], 0, 0
    while reached < count:
        reached = min(count, reached + sizes[number % len(sizes)])
        places.append(reached)
        number += 1
    return places


def _settings(examples: int, derandomize: bool) -> hypothesis.settings:
    return hypothesis.settings(
        max_examples=examples,
        database=None,
        deadline=None,
        derandomize=derandomize,
        suppress_health_check=list(hypothesis.HealthCheck),
    )


def _schemas() -> st.SearchStrategy[Given]:
    def given(drawn: tool_schemas.Drawn, sizes: list[int]) -> Given:
        return {"schema": drawn[0], "arguments": drawn[1], "sizes": sizes}

    return st.builds(given, tool_schemas.parameters(tool_schemas.shapes()), SIZES)


def _names() -> st.SearchStrategy[Given]:
    return st.builds(lambda given, sizes: {**given, "sizes": sizes}, odd_names.calls(), SIZES)


def _near_native() -> st.SearchStrategy[Given]:
    def given(form: str, drawn: tuple[list[dict[str, Any]], list[Call]], sizes: list[int]) -> Given:
        tools, calls = drawn
        return {"form": form, "tools": tools, "calls": [vars(call) for call in calls], "sizes": sizes}

    return st.builds(given, st.sampled_from(list(near_native.FORMS)), near_native.calls(), SIZES)


def _tool(name: str, parameters: dict[str, Any]) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "description": name, "parameters": parameters}}


def _calls_as_json(calls: Any) -> list[dict[str, Any]]:
    return [{"name": call.name, "arguments": call.arguments} for call in calls]


def _differ(one: Delivered, other: Delivered) -> bool:
    """Whether two deliveries differ in more than white space of their text; PARSE-04 compares that too."""
    texts = any(one[part].split() != other[part].split() for part in ("reasoning", "content"))
    return texts or json.dumps(one["calls"], sort_keys=True) != json.dumps(other["calls"], sort_keys=True)
