"""Defects of vLLM's Gemma 4 parser, put back: as functions, and in a running server.

``python -m negative_controls.museum.parsers DEFECT`` tries the broken parser as the suite's observer does. A server
gets this file by ``--tool-parser-plugin``. The file that MUSEUM_SWITCH names then says which defect its parser has. It
is read at every call, so one server can show all defects.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

SWITCH = "MUSEUM_SWITCH"

Spoil = Callable[[Any, list[int], dict[str, int]], None]  # a delta or a whole answer, its token ids, the vocabulary


class Said:
    """A whole answer in the shape of a delta."""

    def __init__(self, reasoning: str | None, content: str | None, calls: Any) -> None:
        self.reasoning, self.content, self.tool_calls = reasoning, content, calls


def second_arguments_dropped(said: Any, ids: list[int], vocabulary: dict[str, int]) -> None:
    """As vllm#41967: if one delta ends a call and begins the next, the arguments of the next call are lost."""
    if not isinstance(said, Said) and vocabulary["<tool_call|>"] in ids and len(ids) > 1:
        for call in said.tool_calls or []:
            if call.index > 0 and call.function and call.function.arguments:
                call.function.arguments = ""


def raw_token_leaks(said: Any, ids: list[int], vocabulary: dict[str, int]) -> None:
    """As vllm#44522: the delimiter appears in the text."""
    if vocabulary["<|tool_call>"] in ids:
        said.content = (said.content or "") + "<|tool_call>"


def thought_in_content(said: Any, _ids: list[int], _vocabulary: dict[str, int]) -> None:
    """As vllm#39885: thoughts are delivered as text."""
    if said.reasoning:
        said.content, said.reasoning = "thought\n" + said.reasoning + (said.content or ""), None


def boundary_swallows_text(said: Any, ids: list[int], vocabulary: dict[str, int]) -> None:
    """As vllm#42781: what follows the end of a thought in the same delta is lost."""
    if not isinstance(said, Said) and vocabulary["<channel|>"] in ids and len(ids) > 1:
        said.content = None


def integers_as_strings(_said: Any, _ids: list[int], _vocabulary: dict[str, int]) -> None:
    """As vllm#47906, but for typed schemas too. It changes no delta; ``install`` omits the conversion by schema."""


def raises_at_a_call(_said: Any, ids: list[int], vocabulary: dict[str, int]) -> None:
    """A parser that raises an exception at a call."""
    if vocabulary["<|tool_call>"] in ids:
        raise KeyError("call")


def references_resolved(_said: Any, _ids: list[int], _vocabulary: dict[str, int]) -> None:
    """No defect, but a mend: schemas reach the conversion with their references resolved, as vllm#50933 wants it."""


def with_resolved(node: Any, root: Any, depth: int = 8) -> Any:
    """A schema with the targets of its local references in their places; a circle ends after ``depth`` references."""
    if isinstance(node, list):
        return [with_resolved(each, root, depth) for each in node]
    if not isinstance(node, dict):
        return node
    reference = node.get("$ref")
    if not isinstance(reference, str) or not reference.startswith("#/") or not depth:
        return {key: with_resolved(each, root, depth) for key, each in node.items()}
    target = root
    for part in reference.split("/")[1:]:
        target = target[part]
    return with_resolved({**target, **{key: each for key, each in node.items() if key != "$ref"}}, root, depth - 1)


SPOILS: dict[str, Spoil] = {
    each.__name__: each
    for each in (
        second_arguments_dropped,
        raw_token_leaks,
        thought_in_content,
        boundary_swallows_text,
        integers_as_strings,
        raises_at_a_call,
        references_resolved,
    )
}


def install(defect: Callable[[], str]) -> None:
    """Give the parser the defect that ``defect`` names at each call; none if the name is unknown."""
    from vllm.parser.abstract_parser import DelegatingParser
    from vllm.parser.engine import parser_engine
    from vllm.parser.engine.parser_engine import ParserEngine

    parse, parse_delta, fix = DelegatingParser.parse, DelegatingParser.parse_delta, ParserEngine._fix_arg_types

    @functools.wraps(parse)
    def whole(self: Any, text: str, *arguments: Any, **named: Any) -> Any:
        said = Said(*parse(self, text, *arguments, **named))
        if spoil := SPOILS.get(defect()):
            spoil(said, list(named.get("model_output_token_ids", ())), self.model_tokenizer.get_vocab())
        return said.reasoning, said.content, said.tool_calls

    @functools.wraps(parse_delta)
    def delta(self: Any, *arguments: Any, **named: Any) -> Any:
        from vllm.entrypoints.generate.base.protocol import DeltaMessage

        said = parse_delta(self, *arguments, **named) or DeltaMessage()
        if spoil := SPOILS.get(defect()):
            spoil(said, named["delta_token_ids"], self.model_tokenizer.get_vocab())
        return said if said.content or said.reasoning or said.tool_calls else None

    def fixed(self: Any, arguments: str, name: str) -> Any:
        return arguments if defect() == integers_as_strings.__name__ else fix(self, arguments, name)

    properties_of = parser_engine.find_tool_properties

    def properties(tools: Any, name: str) -> dict[str, Any]:
        if defect() != references_resolved.__name__:
            return dict(properties_of(tools, name))
        schemas = [tool.function.parameters for tool in tools or () if tool.function.name == name]
        return dict(with_resolved(schemas[0].get("properties", {}), schemas[0])) if schemas else {}

    parser_engine.find_tool_properties = properties
    DelegatingParser.parse, DelegatingParser.parse_delta, ParserEngine._fix_arg_types = whole, delta, fixed


def _of_the_switch() -> str:
    path = Path(os.environ[SWITCH])
    return path.read_text().strip() if path.is_file() else ""


if SWITCH in os.environ:
    from negative_controls.museum import api

    install(_of_the_switch)
    api.install(_of_the_switch)

if __name__ == "__main__":
    from hypothesis import strategies as st

    from conformance.inside_vllm import parser_trials

    install(lambda: sys.argv[1])
    # These two fail without a defect, and their smallest examples take longer to find than all else.
    parser_trials.unions = parser_trials.untyped = lambda: st.just(({"type": "string"}, st.just("a")))
    parser_trials.main()
