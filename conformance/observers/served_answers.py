"""How the observers of FEATURE ask the two servers in the configuration that people serve, and what they keep."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import httpx

from conformance.evidence.folder import Evidence
from conformance.formats import json_lines
from conformance.formats.json_files import parse_json
from conformance.formats.tool_call_deltas import add_to_call
from conformance.observers.refusals import require_sound_pair
from conformance.profile.arms import MTP, PLAIN
from conformance.profile.profile import Profile
from conformance.serving.pool import ServerPool
from conformance.serving.server import Server

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
GREEDY = {"temperature": 0, "return_token_ids": True}
_DATA, _DONE = "data: ", "[DONE]"  # server-sent events

T = TypeVar("T")
Reply = dict[str, Any]


@contextmanager
def as_served(profile: Profile, servers: ServerPool, evidence: Evidence) -> Iterator[None]:
    """Nobody else uses a server meanwhile: some cases count, and both configurations may not fit into memory at once.

    Raises:
        ObservationError: the pair is not sound.
        Unsupported: the hardware has no configuration that people serve.
    """
    profile.hardware.as_served()
    require_sound_pair(profile, servers, evidence)
    with servers.exclusive():
        yield


def ask_both(profile: Profile, servers: ServerPool, work: Callable[[Server], T]) -> dict[str, T]:
    """The results of the same work on both servers, by arm: at once if both fit, else first without MTP.

    Raises:
        ObservationError: a server could not be started or has died.
    """
    arms = {PLAIN: servers.served_plain, MTP: servers.served}
    if not profile.hardware.two_servers:
        return {arm: work(start()) for arm, start in arms.items()}
    running = {arm: start() for arm, start in arms.items()}
    with ThreadPoolExecutor(len(running)) as pool:
        return dict(zip(running, pool.map(work, running.values()), strict=True))


def drafts(server: Server) -> bool:
    """Whether the server was started with a draft."""
    return "--speculative-config" in server.command


def ask_at_once(server: Server, path: str, questions: Sequence[Mapping[str, Any]], seconds: float) -> list[Reply]:
    """The replies to all questions, which are asked at once.

    Raises:
        ObservationError: the server has died.
    """
    with ThreadPoolExecutor(max(len(questions), 1)) as pool:
        return list(pool.map(lambda question: ask(server, path, question, seconds), questions))


def ask(server: Server, path: str, question: Mapping[str, Any], seconds: float) -> Reply:
    """One reply: its choices and its counted tokens (prompt, output), or the status and message of a refusal.

    Raises:
        ObservationError: the server has died.
    """
    asked = {"model": server.model, **question}
    if asked.get("stream"):
        asked["stream_options"] = {"include_usage": True}
    try:
        response = server.request("POST", path, seconds, asked)
        if response.status_code != httpx.codes.OK:
            return _refused(response.status_code, response.text)
        return _reply(frames(response) if asked.get("stream") else [response.json()])
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        if not server.alive:
            raise server.failure("it ended during a request") from None
        return _refused(None, f"{type(error).__name__}: {error}")


def frames(response: httpx.Response) -> list[dict[str, Any]]:
    """The JSON objects of an event stream.

    Raises:
        ValueError: one of them is an error, or not JSON.
    """
    lines = (line.removeprefix(_DATA) for line in json_lines.lines_of_stream([response.content]))
    found = [parse_json(line) for line in lines if line and line != _DONE]
    for frame in found:
        if "error" in frame:
            raise ValueError(frame["error"])
    return found


def _refused(status: int | None, message: str) -> Reply:
    return {"status": status, "message": message[:500], "choices": [], "usage": None}


def _reply(parts: Sequence[Mapping[str, Any]]) -> Reply:
    choices: dict[int, dict[str, Any]] = {}
    usage = None
    for part in parts:
        usage = part.get("usage") or usage
        for choice in part["choices"]:
            _add(choices.setdefault(choice["index"], _empty()), choice)
    if usage is None:
        raise ValueError("the answer has no usage")
    counted = [usage["prompt_tokens"], usage["completion_tokens"]]
    ordered = [_without_empty(choices[index]) for index in sorted(choices)]
    return {"status": int(httpx.codes.OK), "message": "", "choices": ordered, "usage": counted}


def _empty() -> dict[str, Any]:
    return {"text": "", "reasoning": "", "calls": [], "token_ids": [], "gaps": [], "finish_reason": None, "stop": None}


def _without_empty(choice: dict[str, Any]) -> dict[str, Any]:
    """Evidence stays compact: what most answers lack is left out."""
    return {name: value for name, value in choice.items() if value or name in ("text", "token_ids", "finish_reason")}


def _add(found: dict[str, Any], choice: Mapping[str, Any]) -> None:
    """Add a whole choice, or a part of a streamed one."""
    message = choice.get("message") or choice.get("delta") or {"content": choice.get("text")}
    found["text"] += message.get("content") or ""
    found["reasoning"] += message.get("reasoning") or ""
    for place, call in enumerate(message.get("tool_calls") or []):
        function = call.get("function") or {}
        add_to_call(
            found["calls"], call.get("index", place), name=function.get("name"), arguments=function.get("arguments")
        )
    found["token_ids"] += choice.get("token_ids") or []
    found["finish_reason"] = choice.get("finish_reason") or found["finish_reason"]
    found["stop"] = choice.get("stop_reason") or found["stop"]
    scored = choice.get("logprobs") or {}
    tops = [[top["logprob"] for top in place["top_logprobs"]] for place in scored.get("content") or []]
    tops += [list(top.values()) for top in scored.get("top_logprobs") or []]  # as the completions API has them
    for first, second in (sorted(top, reverse=True)[:2] for top in tops):
        found["gaps"].append(round(first - second, 3))


def prompt_ids(server: Server, text: str, seconds: float) -> list[int]:
    """The token ids of a text as a prompt.

    Raises:
        ObservationError: the server does not tell them.
    """
    question = {"model": server.model, "prompt": text, "max_tokens": 1, **GREEDY}
    try:
        answer = server.request("POST", COMPLETIONS, seconds, question).json()
        return list(answer["choices"][0]["prompt_token_ids"])
    except (httpx.HTTPError, ValueError, KeyError, TypeError, IndexError) as error:
        raise server.failure(f"it does not tell the token ids of a prompt ({type(error).__name__}: {error})") from None
