"""The client that asks prompts and measures answers: text, tokens and seconds."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import repeat
from typing import TYPE_CHECKING, Any

import httpx2

from conformance.formats import json_lines
from conformance.formats.tool_call_deltas import add_to_call
from conformance.serving.server import Server
from conformance.workload.prompts import Prompt

if TYPE_CHECKING:  # its import takes a second, and who judges recorded evidence asks nobody
    import openai
    from openai.types.chat import ChatCompletionChunk

_DATA, _DONE = "data: ", "[DONE]"  # server-sent events
IDLE_SECONDS = 2.0  # an idle connection is not used again after this time


@dataclass(frozen=True)
class Answer:
    """The answer to one prompt."""

    id: str
    reasoning: str
    content: str
    tool_calls: tuple[Mapping[str, str], ...]  # name and arguments, which are the delivered text
    finish_reason: str
    prompt_tokens: int
    output_tokens: int
    token_ids: tuple[int, ...]
    prompt_ids: tuple[int, ...]
    seconds: float
    arrivals: tuple[float, ...] = ()  # for a streamed answer: seconds until each delivery with tokens
    speculation: Mapping[str, Any] | None = None  # vLLM's own count of this request's drafts, if the answer has it

    @property
    def text(self) -> str:
        """The whole generated text: thoughts, content and calls, for comparing two answers."""
        return "".join([self.reasoning, self.content, *(json.dumps(dict(call)) for call in self.tool_calls)])


@dataclass(frozen=True)
class Continuation:
    """Greedy tokens, and the gap in nats between each token and the second most likely one."""

    token_ids: tuple[int, ...]
    gaps: tuple[float, ...]


def official(server: Server, request_seconds: float) -> openai.OpenAI:
    """The official client of one server, which never retries; the caller closes it."""
    import openai

    # vLLM closes a connection that is idle for 5 s; a request that reuses it at that moment would be lost.
    limits = httpx2.Limits(keepalive_expiry=IDLE_SECONDS)
    transport = _DeadlineTransport(request_seconds, limits=limits, trust_env=False)
    http = openai.DefaultHttpxClient(trust_env=False, timeout=request_seconds, transport=transport)
    return openai.OpenAI(base_url=f"{server.base_url}/v1", api_key=server.key, max_retries=0, http_client=http)


class _DeadlineTransport(httpx2.HTTPTransport):
    """Stops an answer that has not ended after so many seconds; httpx's own timeout restarts at every byte."""

    def __init__(self, seconds: float, **options: Any) -> None:
        super().__init__(**options)
        self._seconds = seconds

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        end = time.monotonic() + self._seconds
        response = super().handle_request(request)
        assert isinstance(response.stream, httpx2.SyncByteStream)
        response.stream = _DeadlineStream(response.stream, end)
        return response


class _DeadlineStream(httpx2.SyncByteStream):
    """The bytes of an answer; raises a timeout after ``end``."""

    def __init__(self, stream: httpx2.SyncByteStream, end: float) -> None:
        self._stream, self._end = stream, end

    def __iter__(self) -> Iterator[bytes]:
        for part in self._stream:
            yield part
            if time.monotonic() > self._end:
                raise httpx2.ReadTimeout("the answer has no end")

    def close(self) -> None:
        self._stream.close()


class Client:
    """Asks one server for chat completions by the official client, at temperature 0 and without retries."""

    def __init__(self, server: Server, request_seconds: float) -> None:
        self._server = server
        self._openai = official(server, request_seconds)

    def close(self) -> None:
        self._openai.close()

    def ask(self, prompt: Prompt, *, stream: bool = False, seed: int | None = None, ignore_eos: bool = False) -> Answer:
        """Ask one prompt; with ``ignore_eos`` the answer has all its ``max_tokens``.

        Raises:
            ObservationError: there is no usable answer.
        """
        question = self._question(prompt, ignore_eos)
        if seed is not None:
            question["seed"] = seed
        return self._parse(prompt, self._send(prompt, question, stream))

    def ask_at_once(
        self, prompts: Sequence[Prompt], *, stream: bool = False, at_once: int | None = None, ignore_eos: bool = False
    ) -> tuple[list[Answer], float]:
        """Ask all prompts at once, or at most ``at_once``; return the answers and the seconds until the last one.

        Raises:
            ObservationError: a prompt got no usable answer.
        """
        questions = [self._question(prompt, ignore_eos) for prompt in prompts]
        begin = time.perf_counter()
        with ThreadPoolExecutor(at_once or len(prompts)) as pool:
            delivered = list(pool.map(self._send, prompts, questions, repeat(stream)))
        seconds = time.perf_counter() - begin
        return [self._parse(prompt, each) for prompt, each in zip(prompts, delivered, strict=True)], seconds

    def continued(self, prefixes: Sequence[Sequence[int]], tokens: int) -> list[Continuation]:
        """Generate up to so many greedy tokens after each prefix of token ids, all at once, with their gaps.

        Raises:
            ObservationError: the request failed.
        """
        choices = self._completions(prefixes, max_tokens=tokens, logprobs=2)
        return [
            Continuation(
                tuple(choice.model_extra["token_ids"]),
                tuple(_gap(list(top.values())) for top in choice.logprobs.top_logprobs),
            )
            for choice in choices
        ]

    def scored(self, sequences: Sequence[Sequence[int]], begin: Sequence[int]) -> list[tuple[float, ...]]:
        """The gap at each position of each sequence from its ``begin`` on; the server reads the tokens as a prompt.

        Raises:
            ObservationError: the request failed.
        """
        choices = self._completions(sequences, max_tokens=1, prompt_logprobs=2)
        tops = [choice.model_extra["prompt_logprobs"] for choice in choices]
        return [
            tuple(_gap([entry["logprob"] for entry in place.values()]) for place in top[start:])
            for top, start in zip(tops, begin, strict=True)
        ]

    def _completions(self, prompts: Sequence[Sequence[int]], **question: int) -> list[Any]:
        """Ask /v1/completions for greedy completions of token ids.

        Raises:
            ObservationError: the request failed.
        """
        import openai

        identified = {"return_token_ids": True, "return_tokens_as_token_ids": True}
        try:
            completion = self._openai.completions.create(
                model=self._server.model,
                prompt=[list(prompt) for prompt in prompts],
                temperature=0,
                extra_body={**identified, **question},
            )
        except openai.OpenAIError as error:
            why = f"{type(error).__name__}: {error}".splitlines()[0][:300]
            raise self._server.failure(f"scoring {len(prompts)} answers failed ({why})") from None
        return list(completion.choices)

    def _question(self, prompt: Prompt, ignore_eos: bool) -> dict[str, Any]:
        question: dict[str, Any] = {
            "model": self._server.model,
            "messages": list(prompt.messages),
            "max_tokens": prompt.max_tokens,
            "temperature": 0,
            "extra_body": {"return_token_ids": True},
        }
        if ignore_eos:
            question["extra_body"]["ignore_eos"] = True
        if prompt.tools:
            question["tools"] = list(prompt.tools)
        if prompt.chat_template_kwargs:
            question["extra_body"]["chat_template_kwargs"] = prompt.chat_template_kwargs
        return question

    def _send(self, prompt: Prompt, question: dict[str, Any], stream: bool) -> _Delivered:
        """Send a request; return the lines of the answer with times. Parsing comes later: it would disturb timing."""
        begin, arrived = time.perf_counter(), []
        if stream:
            question |= {"stream": True, "stream_options": {"include_usage": True}}
        with (
            self._usable(prompt),
            self._openai.chat.completions.with_streaming_response.create(**question) as response,
        ):
            for line in json_lines.lines_of_stream(response.iter_bytes()):
                arrived.append((time.perf_counter() - begin, line))
            model = self._server.model if self._server.names_itself else None
            return _Delivered(arrived, stream, time.perf_counter() - begin, model)

    def _parse(self, prompt: Prompt, delivered: _Delivered) -> Answer:
        with self._usable(prompt):
            return delivered.answer(prompt.id)

    @contextmanager
    def _usable(self, prompt: Prompt) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # refused, cut off, too late, or unusable
            why = f"{type(error).__name__}: {error}".splitlines()[0][:300]
            raise self._server.failure(f"prompt {prompt.id} got no usable answer ({why})") from None


@contextmanager
def client(server: Server, request_seconds: float) -> Iterator[Client]:
    """A client, which is closed at the end."""
    made = Client(server, request_seconds)
    try:
        yield made
    finally:
        made.close()


@dataclass(frozen=True)
class _Delivered:
    """The lines of a response with their times, and the seconds until the end."""

    lines: Sequence[tuple[float, str]]
    streamed: bool
    seconds: float
    model: str | None  # that must have answered; None if it may have another name

    def answer(self, name: str) -> Answer:
        return self._streamed(name) if self.streamed else self._whole(name)

    def _whole(self, name: str) -> Answer:
        from openai.types.chat import ChatCompletion

        completion: Any = ChatCompletion.construct(**json.loads("\n".join(line for _, line in self.lines)))
        self._require_own(completion.model)
        choice = completion.choices[0]
        parts = _Parts(choice.message.content or "", _reasoning(choice.message))
        for call in choice.message.tool_calls or []:
            parts.calls.append({"name": call.function.name, "arguments": call.function.arguments})
        parts.token_ids = list((choice.model_extra or {})["token_ids"])
        parts.take(completion)
        return parts.answer(name, choice.finish_reason, completion.usage, self.seconds)

    def _streamed(self, name: str) -> Answer:
        parts, finish, usage = _Parts("", ""), None, None
        for arrival, chunk in self._chunks():
            self._require_own(chunk.model)
            usage = chunk.usage or usage
            parts.take(chunk)
            for choice in chunk.choices:
                if parts.add(choice):
                    parts.arrivals.append(arrival)
                if finish and choice.finish_reason:
                    raise ValueError("the stream ends twice")
                finish = choice.finish_reason or finish
        return parts.answer(name, finish, usage, self.seconds)

    def _chunks(self) -> Iterator[tuple[float, ChatCompletionChunk]]:
        from openai.types.chat import ChatCompletionChunk

        for arrival, line in self.lines:
            data = line.removeprefix(_DATA)
            if data == _DONE:
                return
            if data:
                said = json.loads(data)
                if "error" in said:
                    raise ValueError(said["error"])
                yield arrival, ChatCompletionChunk.construct(**said)
        raise ValueError(f"the stream has no {_DONE}")

    def _require_own(self, model: str) -> None:
        """Require that the server answers whose name the suite made up: another one may have taken its port.

        Raises:
            ValueError: it is another one.
        """
        if self.model is not None and model != self.model:
            raise ValueError(f"the answer is of the model {model!r}, not of {self.model}")


class _Parts:
    """The parts of an answer while it is put together."""

    def __init__(self, content: str, reasoning: str) -> None:
        self.content, self.reasoning = content, reasoning
        self.calls: list[dict[str, str]] = []
        self.token_ids: list[int] = []
        self.prompt_ids: list[int] = []
        self.arrivals: list[float] = []
        self.speculation: Mapping[str, Any] | None = None

    def take(self, message: Any) -> None:
        """Take what a whole answer or a chunk has besides its choices."""
        extra = message.model_extra or {}
        self.prompt_ids = list(extra.get("prompt_token_ids") or self.prompt_ids)
        self.speculation = (extra.get("metrics") or {}).get("speculative_decoding") or self.speculation

    def add(self, choice: Any) -> bool:
        """Add one chunk of a stream; return whether it has tokens."""
        tokens = (choice.model_extra or {}).get("token_ids") or []
        self.content += choice.delta.content or ""
        self.reasoning += _reasoning(choice.delta)
        self.token_ids += tokens
        for call in choice.delta.tool_calls or []:
            add_to_call(self.calls, call.index, name=call.function.name, arguments=call.function.arguments)
        return bool(tokens)

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
            arrivals=tuple(self.arrivals),
            speculation=self.speculation,
        )


def _reasoning(message: Any) -> str:
    """The thoughts of a message; OpenAI's schema has no field for them, so vLLM adds one."""
    return str((message.model_extra or {}).get("reasoning") or "")


def _gap(logprobs: Sequence[float]) -> float:
    """The difference between the two largest values."""
    first, second, *_ = sorted(logprobs, reverse=True)
    return first - second
