"""Chats whose right answer is known, asked in one piece and streamed, with and without MTP, alone and at once.

One observation for each group of cases, so that pytest-xdist's workers can share them; a group of ``BATCHES`` is asked
at once, all others case by case.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import openai

from conformance.errors import Unsupported
from conformance.evidence.folder import Evidence
from conformance.observers.other_apis import DIALECTS, Dialect, Refused, Said
from conformance.observers.refusals import require_sound_pair
from conformance.profile.arms import MTP, PLAIN
from conformance.profile.profile import Profile
from conformance.serving.pool import ServerPool
from conformance.serving.server import Server
from conformance.workload.chat_cases import CHAT, Case, load_cases
from conformance.workload.client import official

WHOLE, NOT_FOUND = 0, 404
# Tokens that gather before a streamed delivery, at least; a step with MTP brings up to k + 1. Cases take turns.
INTERVALS = (1, 4)
# Asked with MTP all at once, so many at a time: groups that they are taken from.
BATCHES: dict[str, tuple[int, tuple[str, ...]]] = {
    "load": (17, ("call", "nested", "two", "thought", "result", "strict")),
    "strict-8": (8, ("strict-thinking", "forced-thinking")),
    "strict-24": (24, ("strict", "strict-thinking", "forced", "forced-thinking")),
}


@dataclass(frozen=True)
class Turn:
    """One request: which case, in which way."""

    case: Case
    server: str
    interval: int


def observe(profile: Profile, servers: ServerPool, evidence: Evidence, group: str) -> Mapping[str, Any]:
    """Every answer to the cases of a group, or what came in its place."""
    require_sound_pair(profile, servers, evidence)
    cases = chosen(profile, group)
    with servers.beside():
        if group in DIALECTS:
            return _document(group, cases, _spoken(profile, servers.mtp(), cases, DIALECTS[group][0]))
        return _document(group, cases, _asked(profile, servers, planned(profile, group, cases)))


def planned(profile: Profile, group: str, cases: Sequence[Case]) -> list[list[Turn]]:
    """Rounds one after another, each with turns at once.

    With MTP a batch is asked at once, other cases one by one. Then the same without MTP, as control, at once, and only
    where both servers are up: a restart for every group would take hours where loading takes minutes.
    """
    ways = [(WHOLE, INTERVALS[place % len(INTERVALS)]) for place in range(len(cases))]
    if group in BATCHES:
        return [[Turn(case, MTP, way[part]) for case, way in zip(cases, ways, strict=True)] for part in (0, 1)]
    every = [(case, interval) for case, way in zip(cases, ways, strict=True) for interval in way]
    alone = [[Turn(case, MTP, interval)] for case, interval in every]
    control = [[Turn(case, PLAIN, interval) for case, interval in every]]
    return alone + control * profile.hardware.two_servers


def _document(group: str, cases: Sequence[Case], answers: list[dict[str, Any]]) -> dict[str, Any]:
    return {"group": group, "cases": {case.id: asdict(case) for case in cases}, "answers": answers}


def chosen(profile: Profile, group: str) -> list[Case]:
    """As many cases as the level wants of a group, or of the groups that a batch and another API take them from."""
    path, sizes = profile.prompts / CHAT, profile.sizes
    if group in DIALECTS:
        single = [case for each in DIALECTS[group][1] for case in chosen(profile, each) if len(case.messages) == 1]
        return [replace(case, tool_choice=None) for case in single]
    if group not in BATCHES:
        calls = any(case.expected.calls for case in load_cases(path, group, 1))
        return list(load_cases(path, group, sizes.calling_cases if calls else sizes.text_cases))
    at_once, groups = BATCHES[group]
    count = math.ceil(at_once / len(groups))
    rows = [load_cases(path, each, count) for each in groups]
    in_turn = [row[place] for place in range(count) for row in rows if place < len(row)]
    return in_turn[:at_once]


def _asked(profile: Profile, servers: ServerPool, rounds: Sequence[Sequence[Turn]]) -> list[dict[str, Any]]:
    """Every turn with its answer, or what came in its place."""
    names = dict.fromkeys(turn.server for turns in rounds for turn in turns)
    running: dict[str, Server] = {name: servers.mtp() if name == MTP else servers.plain() for name in names}
    with ExitStack() as opened:
        seconds = profile.hardware.bounds.request_seconds
        clients = {name: opened.enter_context(closing(official(server, seconds))) for name, server in running.items()}
        pool = opened.enter_context(ThreadPoolExecutor(max(map(len, rounds))))

        def ask(turn: Turn) -> dict[str, Any]:
            answer = answered(clients[turn.server], running[turn.server], turn.case.question(), turn.interval)
            return {"case": turn.case.id, "server": turn.server, "interval": turn.interval, **answer}

        return [answer for turns in rounds for answer in pool.map(ask, turns)]


def _spoken(profile: Profile, server: Server, cases: Sequence[Case], dialect: Dialect) -> list[dict[str, Any]]:
    """Every case by another API, in one piece and streamed; Unsupported where the server does not have it."""
    seconds, found = profile.hardware.bounds.request_seconds, []
    with closing(official(server, seconds)) as client:
        for case in cases:
            for interval in (WHOLE, INTERVALS[0]):
                ask = partial(dialect, server, client, case, interval != WHOLE, seconds)
                answer = _kept(server, ask)
                if answer["error"] and answer["error"]["status"] == NOT_FOUND:
                    raise Unsupported(f"This server has no such API: {answer['error']['message']}")
                found.append({"case": case.id, "server": MTP, "interval": interval, **answer})
    return found


def answered(client: openai.OpenAI, server: Server, question: dict[str, Any], interval: int) -> dict[str, Any]:
    """The messages of one choice, one for each delivery, or the error."""
    ask = {**question, "model": server.model, "temperature": 0}
    return _kept(
        server, partial(_whole, client, ask) if interval == WHOLE else partial(_streamed, client, ask, interval)
    )


def _kept(server: Server, ask: Callable[[], Said]) -> dict[str, Any]:
    """What came, or the error in its place; ObservationError only where the server is gone."""
    try:
        messages, finish = ask()
    except (openai.APIStatusError, Refused) as error:
        return _failed(error.status_code, error.message)
    except Exception as error:  # cut off, too late, or rubbish
        if not server.alive:
            raise server.failure("is gone") from None
        return _failed(None, f"{type(error).__name__}: {error}")
    if finish is None:
        return _failed(None, "the answer was cut off: it has no finish reason")
    return {"messages": messages, "finish_reason": finish, "error": None}


def _whole(client: openai.OpenAI, ask: dict[str, Any]) -> Said:
    (choice,) = client.chat.completions.create(**ask).choices
    return [_said(choice.message)], choice.finish_reason


def _streamed(client: openai.OpenAI, ask: dict[str, Any], interval: int) -> Said:
    ask = {**ask, "stream": True, "extra_body": {**ask["extra_body"], "stream_interval": interval}}
    messages, finish = [], None
    for chunk in client.chat.completions.create(**ask):
        for choice in chunk.choices:
            messages.append(_said(choice.delta))
            finish = choice.finish_reason or finish
    return messages, finish


def _said(message: Any) -> dict[str, Any]:
    """Text, thoughts and calls of a message or a delta, as they were delivered."""
    calls = [
        {
            "index": getattr(call, "index", place),
            "id": call.id,
            "name": call.function.name,
            "arguments": call.function.arguments,
        }
        for place, call in enumerate(message.tool_calls or [])
    ]
    return {"content": message.content, "reasoning": (message.model_extra or {}).get("reasoning"), "calls": calls}


def _failed(status: int | None, message: str) -> dict[str, Any]:
    return {"messages": [], "finish_reason": None, "error": {"status": status, "message": message[:500]}}
