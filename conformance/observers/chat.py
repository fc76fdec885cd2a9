"""Chats with a known right answer, asked in one piece and streamed, with and without MTP, alone and at once.

Each group of cases is an observation of its own, so that pytest-xdist's workers can share the work. The cases of a
group in ``BATCHES`` are asked at once, all others one after another.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    import openai

WHOLE, NOT_FOUND = 0, 404
# The least number of tokens in a streamed delivery; a step with MTP yields up to k + 1. Cases take turns.
INTERVALS = (1, 4)
# Batches that are asked at once with MTP: how many cases, and the groups that they come from.
BATCHES: dict[str, tuple[int, tuple[str, ...]]] = {
    "load": (17, ("call", "nested", "two", "thought", "result", "strict")),
    "strict-8": (8, ("strict-thinking", "forced-thinking")),
    "strict-24": (24, ("strict", "strict-thinking", "forced", "forced-thinking")),
}


@dataclass(frozen=True)
class Turn:
    """One request: the case, the server, and how the answer is delivered."""

    case: Case
    server: str
    interval: int


def observe(profile: Profile, servers: ServerPool, evidence: Evidence, group: str) -> Mapping[str, Any]:
    """Every answer to the cases of a group, or the error instead of it.

    Raises:
        ObservationError: a server has died.
        Unsupported: the server lacks an API, or it was not started by the suite.
    """
    require_sound_pair(profile, servers, evidence)
    cases = choose_cases(profile, group)
    with servers.shared():
        if group in DIALECTS:
            return _document(group, cases, _ask_by_dialect(profile, servers.mtp(), cases, DIALECTS[group][0]))
        return _document(group, cases, _ask_in_rounds(profile, servers, plan_rounds(profile, group, cases)))


def plan_rounds(profile: Profile, group: str, cases: Sequence[Case]) -> list[list[Turn]]:
    """The rounds, one after another; the turns of a round are asked at once.

    With MTP, a batch is asked at once and other cases one by one. Without MTP, as a control, all cases are asked at
    once, but only if both servers run: where loading takes minutes, a restart for every group would take hours.
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


def choose_cases(profile: Profile, group: str) -> list[Case]:
    """The cases of a group, as many as the level says; batches and other APIs take cases from several groups."""
    path, sizes = profile.prompts / CHAT, profile.sizes
    if group in DIALECTS:
        single = [
            case for each in DIALECTS[group][1] for case in choose_cases(profile, each) if len(case.messages) == 1
        ]
        return [replace(case, tool_choice=None) for case in single]
    if group not in BATCHES:
        calls = any(case.expected.calls for case in load_cases(path, group, 1))
        return list(load_cases(path, group, sizes.calling_cases if calls else sizes.text_cases))
    at_once, groups = BATCHES[group]
    count = math.ceil(at_once / len(groups))
    rows = [load_cases(path, each, count) for each in groups]
    in_turn = [row[place] for place in range(count) for row in rows if place < len(row)]
    return in_turn[:at_once]


def _ask_in_rounds(profile: Profile, servers: ServerPool, rounds: Sequence[Sequence[Turn]]) -> list[dict[str, Any]]:
    """Every turn with its answer, or with the error instead of it."""
    names = dict.fromkeys(turn.server for turns in rounds for turn in turns)
    running: dict[str, Server] = {name: servers.mtp() if name == MTP else servers.plain() for name in names}
    with ExitStack() as opened:
        seconds = profile.hardware.bounds.request_seconds
        clients = {name: opened.enter_context(closing(official(server, seconds))) for name, server in running.items()}
        pool = opened.enter_context(ThreadPoolExecutor(max(map(len, rounds))))

        def ask(turn: Turn) -> dict[str, Any]:
            answer = ask_chat(clients[turn.server], running[turn.server], turn.case.question(), turn.interval)
            return {"case": turn.case.id, "server": turn.server, "interval": turn.interval, **answer}

        return [answer for turns in rounds for answer in pool.map(ask, turns)]


def _ask_by_dialect(profile: Profile, server: Server, cases: Sequence[Case], dialect: Dialect) -> list[dict[str, Any]]:
    """Ask every case by another API, in one piece and streamed.

    Raises:
        Unsupported: the server does not have this API.
    """
    seconds, found = profile.hardware.bounds.request_seconds, []
    with closing(official(server, seconds)) as client:
        for case in cases:
            for interval in (WHOLE, INTERVALS[0]):
                ask = partial(dialect, server, client, case, interval != WHOLE, seconds)
                answer = _answer_or_error(server, ask)
                if answer["error"] and answer["error"]["status"] == NOT_FOUND:
                    raise Unsupported(f"This server has no such API: {answer['error']['message']}")
                found.append({"case": case.id, "server": MTP, "interval": interval, **answer})
    return found


def ask_chat(client: openai.OpenAI, server: Server, question: dict[str, Any], interval: int) -> dict[str, Any]:
    """The messages of one answer, one for each delivery, or the error.

    Raises:
        ObservationError: the server has died.
    """
    ask = {**question, "model": server.model, "temperature": 0}
    return _answer_or_error(
        server, partial(_whole, client, ask) if interval == WHOLE else partial(_streamed, client, ask, interval)
    )


def _answer_or_error(server: Server, ask: Callable[[], Said]) -> dict[str, Any]:
    """The answer, or the error instead of it.

    Raises:
        ObservationError: the server has died.
    """
    import openai

    try:
        messages, finish = ask()
    except (openai.APIStatusError, Refused) as error:
        return _failed(error.status_code, error.message)
    except Exception as error:  # cut off, too late, or unusable
        if not server.alive:
            raise server.failure("it has ended") from None
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
