"""vLLM's parser of Gemma 4 as a function of tokens: in one piece, and delta by delta.

The server holds one parser for a request and gives it what the detokenizer gives: text and token ids of a step, several
tokens at once with MTP. Both halves (reasoning and tools) are had by the same door in every vLLM from 0.21 on,
``ParserManager.get_parser``; behind it a class for each half became one engine for both in 0.24.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers.decoders import DecodeStream

from conformance.formats.tool_call_deltas import add_to_call
from conformance.inside_vllm.adapters import upstream

NAME = "gemma4"


@dataclass(frozen=True)
class Asked:
    """What a parser knows of its request: tools as OpenAI declares them, the template's arguments, the prompt's ids."""

    tools: Sequence[Mapping[str, Any]] = ()
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    prompt_ids: Sequence[int] = ()


@dataclass
class Parsed:
    """An answer as a client would put it together; ``arguments`` of a call as the JSON text that was delivered."""

    reasoning: str = ""
    content: str = ""
    calls: list[dict[str, str]] = field(default_factory=list)

    def add(self, reasoning: str | None, content: str | None) -> None:
        """Text of a delta, or of the whole."""
        self.reasoning += reasoning or ""
        self.content += content or ""

    def add_call(self, index: int, name: str | None, arguments: str | None) -> None:
        """A call's delta, by its place in the answer."""
        add_to_call(self.calls, index, name=name, arguments=arguments)


class Gemma4:
    """The installed vLLM's parser of Gemma 4, with a tokenizer of the family."""

    def __init__(self, tokenizer: Path) -> None:
        """``tokenizer`` is a checkpoint's folder; Unsupported where this vLLM has no such parser."""
        self.tokenizer = upstream("vllm.tokenizers", "get_tokenizer")(str(tokenizer))
        self._request = upstream("vllm.entrypoints.openai.chat_completion.protocol", "ChatCompletionRequest")
        manager = upstream("vllm.parser", "ParserManager")
        self._parser = manager.get_parser(tool_parser_name=NAME, reasoning_parser_name=NAME, enable_auto_tools=True)

    def encode(self, text: str) -> list[int]:
        """Token ids of an answer's text, special tokens among them."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of tokens, special ones as they are."""
        return "".join(self.pieces(ids))

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """What each token adds to the text; empty where a character is not complete yet."""
        backend, stream = self.tokenizer.backend_tokenizer, DecodeStream(skip_special_tokens=False)
        return [stream.step(backend, id) or "" for id in ids]

    def whole(self, asked: Asked, ids: Sequence[int], stop: int | None = None) -> Parsed:
        """The answer parsed in one piece; ``stop`` is the token that ended it, which has an id but no text."""
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
        """The answer parsed delta by delta; ``ends`` says after how many tokens each delta ends, the last with all."""
        parser, request = self._prepared(asked, stream=True)
        pieces, parsed, begin = self.pieces(ids), Parsed(), 0
        tells_the_end = "finished" in inspect.signature(parser.parse_delta).parameters
        for end in ends:
            delta, last = list(ids[begin:end]), end == ends[-1]
            message = parser.parse_delta(
                delta_text="".join(pieces[begin:end]),
                delta_token_ids=delta + ([stop] if last and stop is not None else []),
                request=request,
                prompt_token_ids=list(asked.prompt_ids),
                **({"finished": last} if tells_the_end else {}),
            )
            begin = end
            if message is not None:
                parsed.add(message.reasoning, message.content)
                for call in message.tool_calls or []:
                    function = call.function
                    parsed.add_call(call.index, function and function.name, function and function.arguments)
        return parsed

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
    """Reasoning, content and calls by whatever this version has for a whole answer."""
    if not hasattr(parser, "parse"):  # 0.21
        reasoning, content = parser.extract_reasoning(text, request)
        found = parser.extract_tool_calls(content or "", request)
        return reasoning, found.content, [call.function for call in found.tool_calls]
    knows_ids = "model_output_token_ids" in inspect.signature(parser.parse).parameters
    more = {"model_output_token_ids": list(ids)} if knows_ids else {}
    reasoning, content, calls = parser.parse(text, request, enable_auto_tools=True, **more)
    return reasoning, content, calls


def as_json(parsed: Parsed) -> dict[str, Any]:
    """The answer with its arguments as values; as text where they are no JSON."""
    calls = [{"name": call["name"], "arguments": _value(call["arguments"])} for call in parsed.calls]
    return {"reasoning": parsed.reasoning, "content": parsed.content, "calls": calls}


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
