"""vLLM's parser of Gemma 4 as a function of tokens: in one piece, and delta by delta.

The server has one parser for each request and passes it the output of the detokenizer: text and token ids of a step,
with MTP several tokens at once. In every vLLM from 0.21 on, ``ParserManager.get_parser`` gives one parser for reasoning
and tools; until 0.23 two classes did the work, since 0.24 one engine does.
"""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers.decoders import DecodeStream

from conformance.formats.tool_call_deltas import add_to_call
from conformance.inside_vllm.adapters import upstream

NAME = "gemma4"


@dataclass(frozen=True)
class Asked:
    """A request as the parser knows it: tools in OpenAI's form, arguments of the template, ids of the prompt."""

    tools: Sequence[Mapping[str, Any]] = ()
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    prompt_ids: Sequence[int] = ()


@dataclass
class Parsed:
    """An answer as a client puts it together; the ``arguments`` of a call are the delivered JSON text."""

    reasoning: str = ""
    content: str = ""
    calls: list[dict[str, str]] = field(default_factory=list)

    def add(self, reasoning: str | None, content: str | None) -> None:
        """Add the text of a delta or of a whole answer."""
        self.reasoning += reasoning or ""
        self.content += content or ""

    def add_call(self, index: int, name: str | None, arguments: str | None) -> None:
        """Add a delta to the call with this index in the answer."""
        add_to_call(self.calls, index, name=name, arguments=arguments)


class Gemma4:
    """The parser of the installed vLLM for Gemma 4, with a tokenizer of this family."""

    def __init__(self, tokenizer: Path) -> None:
        """``tokenizer`` is the folder of a checkpoint.

        Raises:
            Unsupported: this vLLM has no such parser.
        """
        self.tokenizer = upstream("vllm.tokenizers", "get_tokenizer")(str(tokenizer))
        self._request = upstream("vllm.entrypoints.openai.chat_completion.protocol", "ChatCompletionRequest")
        manager = upstream("vllm.parser", "ParserManager")
        self._parser = manager.get_parser(tool_parser_name=NAME, reasoning_parser_name=NAME, enable_auto_tools=True)
        # The same answer is parsed in one piece and in many deltas, one after the other.
        self._ids_of = functools.lru_cache(maxsize=64)(self._encode)
        self._pieces_of = functools.lru_cache(maxsize=64)(self._pieces)

    def encode(self, text: str) -> list[int]:
        """The token ids of an answer's text, including special tokens."""
        return list(self._ids_of(text))

    def decode(self, ids: Sequence[int]) -> str:
        """The text of tokens, including special tokens."""
        return "".join(self.pieces(ids))

    def pieces(self, ids: Sequence[int]) -> tuple[str, ...]:
        """The text that each token adds; empty if a character is not complete yet."""
        return self._pieces_of(tuple(ids))

    def whole(self, asked: Asked, ids: Sequence[int], stop: int | None = None) -> Parsed:
        """Parse the answer in one piece; ``stop`` is the token that ended it, which has an id but no text."""
        parser, request = self._prepared(asked, stream=False)
        text, every = self.decode(ids), [*ids, *([] if stop is None else [stop])]
        if hasattr(parser, "set_prompt_token_ids"):
            parser.set_prompt_token_ids(list(asked.prompt_ids))
        reasoning, content, calls = _parse(parser, request, text, every)
        parsed = Parsed()
        parsed.add(reasoning, content)
        for index, call in enumerate(calls or []):
            parsed.add_call(index, call.name, call.arguments)
        return parsed

    def streamed(self, asked: Asked, ids: Sequence[int], ends: Sequence[int], stop: int | None = None) -> Parsed:
        """Parse the answer delta by delta; ``ends`` are the positions where deltas end, the last after all tokens."""
        parser, request = self._prepared(asked, stream=True)
        pieces, parsed, begin = self.pieces(ids), Parsed(), 0
        prompt, tells_the_end = list(asked.prompt_ids), _takes(type(parser).parse_delta, "finished")
        for end in ends:
            delta, last = list(ids[begin:end]), end == ends[-1]
            message = parser.parse_delta(
                delta_text="".join(pieces[begin:end]),
                delta_token_ids=delta + ([stop] if last and stop is not None else []),
                request=request,
                prompt_token_ids=prompt,
                **({"finished": last} if tells_the_end else {}),
            )
            begin = end
            if message is not None:
                parsed.add(message.reasoning, message.content)
                for call in message.tool_calls or []:
                    function = call.function
                    parsed.add_call(call.index, function and function.name, function and function.arguments)
        return parsed

    def _encode(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer.encode(text, add_special_tokens=False))

    def _pieces(self, ids: tuple[int, ...]) -> tuple[str, ...]:
        backend, stream = self.tokenizer.backend_tokenizer, DecodeStream(skip_special_tokens=False)
        return tuple(stream.step(backend, id) or "" for id in ids)

    def _prepared(self, asked: Asked, stream: bool) -> tuple[Any, Any]:
        request = self._request(
            model="any",
            messages=[{"role": "user", "content": "-"}],
            tools=list(asked.tools) or None,
            chat_template_kwargs=dict(asked.chat_template_kwargs) or None,
            stream=stream,
        )
        parser = self._parser(self.tokenizer, request.tools, chat_template_kwargs=dict(asked.chat_template_kwargs))
        return parser, parser.adjust_request(request=request)


def _parse(parser: Any, request: Any, text: str, ids: Sequence[int]) -> tuple[str | None, str | None, Any]:
    """Reasoning, content and calls of a whole answer, by the function that this version has."""
    if not hasattr(parser, "parse"):  # 0.21
        reasoning, content = parser.extract_reasoning(text, request)
        found = parser.extract_tool_calls(content or "", request)
        return reasoning, found.content, [call.function for call in found.tool_calls]
    more = {"model_output_token_ids": list(ids)} if _takes(type(parser).parse, "model_output_token_ids") else {}
    reasoning, content, calls = parser.parse(text, request, enable_auto_tools=True, **more)
    return reasoning, content, calls


@functools.cache
def _takes(method: Callable[..., Any], parameter: str) -> bool:
    """Whether a method of this version's parser has the parameter."""
    return parameter in inspect.signature(method).parameters


def as_json(parsed: Parsed) -> dict[str, Any]:
    """The answer with its arguments as values, or as text if they are not JSON."""
    calls = [{"name": call["name"], "arguments": _value(call["arguments"])} for call in parsed.calls]
    return {"reasoning": parsed.reasoning, "content": parsed.content, "calls": calls}


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
