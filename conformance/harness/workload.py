"""Prompts, and what a server answers to them: text, tokens and seconds."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain, zip_longest
from pathlib import Path
from threading import Barrier
from typing import Any

import httpx2
import openai
from pydantic.dataclasses import dataclass as table

from conformance.harness import tables
from conformance.harness.errors import UsageError
from conformance.harness.server import Server
from conformance.harness.tables import STRICT

IDLE_SECONDS = 2.0  # after which a connection is not used again
MIXED, TOOLS = "mixed.jsonl", "tools.jsonl"  # in the profile's folder of prompts


@table(frozen=True, config=STRICT)
class Prompt:
    """One row of fixtures/prompts."""

    id: str
    category: str
    licence: str
    messages: tuple[dict[str, Any], ...]
    max_tokens: int
    tools: tuple[dict[str, Any], ...] = ()
    chat_template_kwargs: dict[str, Any] | None = None
    expected: dict[str, Any] | None = None  # the call that must come back: name and arguments


@dataclass(frozen=True)
class Answer:
    """What came back for one prompt."""

    id: str
    reasoning: str
    content: str
    tool_calls: tuple[Mapping[str, str], ...]  # name and arguments, the latter as the text that was delivered
    finish_reason: str
    prompt_tokens: int
    output_tokens: int
    token_ids: tuple[int, ...]
    prompt_ids: tuple[int, ...]  # empty for a streamed answer
    seconds: float
    first_seconds: float | None = field(default=None, compare=False)  # until the first token; None in one piece
    speculation: Mapping[str, Any] | None = None  # vLLM's counts of this request, where it tells them

    @property
    def text(self) -> str:
        """Everything that was written: thoughts, content and calls, so that two answers can be compared whole."""
        return "".join([self.reasoning, self.content, *(json.dumps(dict(call)) for call in self.tool_calls)])

    def written(self) -> dict[str, Any]:
        """What was written, as evidence keeps it for comparison with another server's answer."""
        return {
            "text": self.text,
            "finish_reason": self.finish_reason,
            "tokens": self.output_tokens,
            "token_ids": list(self.token_ids),
        }


def load_prompts(path: Path) -> list[Prompt]:
    """The prompts of a JSON Lines file; raises UsageError naming file, line and mend."""
    if not path.is_file():
        raise UsageError(f"{path}: there is no such file; prompts are JSON Lines.")
    prompts: list[Prompt] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        where = Path(f"{path}:{number}")
        try:
            row = json.loads(line)
        except ValueError as error:
            raise UsageError(f"{where}: not valid JSON ({error}).") from None
        prompts.append(tables.convert(where, row, Prompt))
    ids = [prompt.id for prompt in prompts]
    for repeated in sorted({name for name in ids if ids.count(name) > 1}):
        raise UsageError(f'{path}: id "{repeated}" is there more than once; rename one.')
    if not prompts:
        raise UsageError(f"{path}: there is no prompt in it.")
    return prompts


def spread(prompts: Sequence[Prompt], count: int) -> list[Prompt]:
    """The first ``count`` prompts, taken from each category in turn."""
    by_category: dict[str, list[Prompt]] = {}
    for prompt in prompts:
        by_category.setdefault(prompt.category, []).append(prompt)
    turns = chain.from_iterable(zip_longest(*by_category.values()))
    return [prompt for prompt in turns if prompt is not None][:count]


class Client:
    """Chat completions from one server by the official client, at temperature 0 and never retried."""

    def __init__(self, server: Server, request_seconds: float) -> None:
        self._server = server
        # vLLM closes a connection that was idle for 5 s; one that is reused at that very moment would be lost.
        limits = httpx2.Limits(keepalive_expiry=IDLE_SECONDS)
        self._http = openai.DefaultHttpxClient(trust_env=False, timeout=request_seconds, limits=limits)
        self._openai = openai.OpenAI(
            base_url=f"{server.base_url}/v1", api_key="none", max_retries=0, http_client=self._http
        )

    def close(self) -> None:
        self._http.close()

    def ask(self, prompt: Prompt, *, stream: bool = False, seed: int | None = None) -> Answer:
        """One answer; ObservationError where there is none."""
        question: dict[str, Any] = {
            "model": self._server.model,
            "messages": list(prompt.messages),
            "max_tokens": prompt.max_tokens,
            "temperature": 0,
            "extra_body": {"return_token_ids": True},
        }
        if prompt.tools:
            question["tools"] = list(prompt.tools)
        if prompt.chat_template_kwargs:
            question["extra_body"]["chat_template_kwargs"] = prompt.chat_template_kwargs
        if seed is not None:
            question["seed"] = seed
        begin = time.perf_counter()
        try:
            read = self._streamed if stream else self._whole
            return read(prompt.id, begin, question)
        except Exception as error:  # refused, cut off, too late, or rubbish: in any case no answer
            why = f"{type(error).__name__}: {error}".splitlines()[0][:300]
            raise self._server.failure(f"prompt {prompt.id} got no usable answer ({why})") from None

    def ask_at_once(self, prompts: Sequence[Prompt]) -> tuple[list[Answer], float]:
        """All of them at the same moment; the answers, and the seconds from then until the last has come."""
        begin: list[float] = []
        barrier = Barrier(len(prompts), action=lambda: begin.append(time.perf_counter()))

        def ask(prompt: Prompt) -> tuple[Answer, float]:
            barrier.wait()
            return self.ask(prompt), time.perf_counter()

        with ThreadPoolExecutor(len(prompts)) as pool:
            results = list(pool.map(ask, prompts))
        return [answer for answer, _ in results], max(end for _, end in results) - begin[0]

    def _whole(self, name: str, begin: float, question: dict[str, Any]) -> Answer:
        completion = self._openai.chat.completions.create(**question)
        seconds = time.perf_counter() - begin
        choice = completion.choices[0]
        parts = _Parts(choice.message.content or "", _reasoning(choice.message))
        for call in choice.message.tool_calls or []:
            parts.calls.append({"name": call.function.name, "arguments": call.function.arguments})
        parts.token_ids = list((choice.model_extra or {})["token_ids"])
        parts.prompt_ids = list((completion.model_extra or {}).get("prompt_token_ids") or [])
        parts.speculation = _speculation(completion)
        return parts.answer(name, choice.finish_reason, completion.usage, seconds)

    def _streamed(self, name: str, begin: float, question: dict[str, Any]) -> Answer:
        parts, finish, usage = _Parts("", ""), None, None
        for chunk in self._openai.chat.completions.create(
            **question, stream=True, stream_options={"include_usage": True}
        ):
            usage = chunk.usage or usage
            parts.speculation = _speculation(chunk) or parts.speculation
            for choice in chunk.choices:
                parts.first_seconds = parts.first_seconds or time.perf_counter() - begin
                parts.add(choice)
                finish = choice.finish_reason or finish
        return parts.answer(name, finish, usage, time.perf_counter() - begin)


@contextmanager
def client(server: Server, request_seconds: float) -> Iterator[Client]:
    """A client that is closed at the end."""
    made = Client(server, request_seconds)
    try:
        yield made
    finally:
        made.close()


class _Parts:
    """An answer being put together."""

    def __init__(self, content: str, reasoning: str) -> None:
        self.content, self.reasoning = content, reasoning
        self.calls: list[dict[str, str]] = []
        self.token_ids: list[int] = []
        self.prompt_ids: list[int] = []
        self.first_seconds: float | None = None
        self.speculation: Mapping[str, Any] | None = None

    def add(self, choice: Any) -> None:
        """One chunk of a stream: what it adds to each part."""
        self.content += choice.delta.content or ""
        self.reasoning += _reasoning(choice.delta)
        self.token_ids += (choice.model_extra or {}).get("token_ids") or []
        for call in choice.delta.tool_calls or []:
            while len(self.calls) <= call.index:
                self.calls.append({"name": "", "arguments": ""})
            self.calls[call.index]["name"] += call.function.name or ""
            self.calls[call.index]["arguments"] += call.function.arguments or ""

    def answer(self, name: str, finish: str | None, usage: Any, seconds: float) -> Answer:
        if finish is None or usage is None:
            raise ValueError("no finish reason or no usage")
        return Answer(
            id=name,
            reasoning=self.reasoning,
            content=self.content,
            tool_calls=tuple(self.calls),
            finish_reason=finish,
            prompt_tokens=int(usage.prompt_tokens),
            output_tokens=int(usage.completion_tokens),
            token_ids=tuple(self.token_ids),
            prompt_ids=tuple(self.prompt_ids),
            seconds=seconds,
            first_seconds=self.first_seconds,
            speculation=self.speculation,
        )


def _reasoning(message: Any) -> str:
    """Thoughts are no part of OpenAI's schema; vLLM puts them here."""
    return str((message.model_extra or {}).get("reasoning") or "")


def _speculation(answer: Any) -> Mapping[str, Any] | None:
    """With ``--per-request-spec-decode-metrics``, vLLM's counts are here."""
    metrics = (answer.model_extra or {}).get("metrics") or {}
    found: Mapping[str, Any] | None = metrics.get("speculative_decoding")
    return found
