"""Observes how the server with MTP handles wrong requests, and clients that leave before the answer ends."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import ExitStack, closing
from typing import Any, Literal

import httpx
from pydantic.dataclasses import dataclass as table

from conformance.evidence.folder import Evidence
from conformance.formats.toml_tables import STRICT
from conformance.observers.refusals import require_sound_pair
from conformance.profile.profile import Profile
from conformance.serving.metrics import gauges, read_counters
from conformance.serving.pool import ServerPool
from conformance.serving.server import Server
from conformance.workload.client import client, official
from conformance.workload.prompts import MIXED, Prompt, load_prompts, load_rows

MISUSE = "misuse.jsonl"  # in the profile's folder of prompts
DEPARTURES = {"one client leaves": 1, "eight clients leave at once": 8}
SETTLE_SECONDS = 10.0  # until a slot must be free again
LONG_ANSWER = 512  # tokens, of which a client reads the first ones
LONGEST = 100_000  # words of a prompt that is too long for every server
PROPERTIES = 2_000  # of a schema that is too large for every server


@table(frozen=True, config=STRICT)
class Wrong:
    """A row of the file: a request and its correct statuses. "$MODEL", "$LONG" and "$HUGE" are placeholders."""

    id: str
    licence: str
    method: str
    path: str
    statuses: tuple[int, ...]
    about: Literal["request", "grammar"] = "request"  # what is wrong: the request itself, or the output it asks for
    body: dict[str, Any] | None = None
    raw: str | None = None  # sent instead of a JSON body


def observe(profile: Profile, servers: ServerPool, evidence: Evidence) -> Mapping[str, Any]:
    """The status and message of every wrong request, what runs after clients left, and one answer before and after."""
    require_sound_pair(profile, servers, evidence)
    seconds = profile.hardware.bounds.request_seconds
    wrong, (prompt, *_) = load_rows(profile.prompts / MISUSE, Wrong), load_prompts(profile.prompts / MIXED)
    with servers.exclusive(), client(servers.mtp(), seconds) as asking:
        server = servers.mtp()
        before = asking.ask(prompt).text
        requests = [send_wrong(server, each, seconds) for each in wrong]
        departures = [observe_departure(server, name, clients, prompt, seconds) for name, clients in DEPARTURES.items()]
        after = asking.ask(prompt).text
    return {"requests": requests, "departures": departures, "before": before, "after": after}


def send_wrong(server: Server, wrong: Wrong, seconds: float) -> dict[str, Any]:
    """Send one wrong request; return it with its status and message.

    Raises:
        ObservationError: the server has died.
    """
    row = {"id": wrong.id, "about": wrong.about, "statuses": list(wrong.statuses)}
    headers = {"content-type": "application/json", **server.headers}
    try:
        response = httpx.request(
            wrong.method,
            server.base_url + wrong.path,
            content=body_of(wrong, server.model),
            headers=headers,
            timeout=seconds,
            trust_env=False,
        )
    except httpx.HTTPError as error:
        if not server.alive:
            raise server.failure(f"it ended after the wrong request {wrong.id}") from None
        return {**row, "status": None, "message": f"{type(error).__name__}: {error}"}
    return {**row, "status": response.status_code, "message": response.text[:300]}


def body_of(wrong: Wrong, model: str) -> bytes | None:
    """The bytes to send."""
    text = wrong.raw if wrong.raw is not None else json.dumps(wrong.body) if wrong.body is not None else None
    if text is None:
        return None
    huge = {"type": "object", "properties": {f"p{n}": {"type": "string"} for n in range(PROPERTIES)}}
    filled = text.replace("$MODEL", model).replace("$LONG", "word " * LONGEST).replace('"$HUGE"', json.dumps(huge))
    return filled.encode()


def observe_departure(server: Server, name: str, clients: int, prompt: Prompt, seconds: float) -> dict[str, Any]:
    """Let clients read one delivery of a long answer and leave; return what the server wrote and still runs then."""
    before = read_counters(server).generated
    question: dict[str, Any] = {"model": server.model, "messages": list(prompt.messages), "max_tokens": LONG_ANSWER}
    with ExitStack() as opened:
        streams = []
        for _ in range(clients):
            asking = opened.enter_context(closing(official(server, seconds)))
            ask = {**question, "temperature": 0, "extra_body": {"ignore_eos": True}, "stream": True}
            streams.append(opened.enter_context(asking.chat.completions.create(**ask)))
        delivered = sum(next(iter(stream), None) is not None for stream in streams)
    running, kv_usage = wait_until_idle(server)
    return {
        "id": name,
        "clients": clients,
        "delivered": delivered,
        "running": running,
        "kv_usage": kv_usage,
        "asked": clients * LONG_ANSWER,
        "generated": read_counters(server).generated - before,
    }


def wait_until_idle(server: Server) -> tuple[int, float]:
    """Wait until nothing runs, at most ``SETTLE_SECONDS``; return running requests and used share of the KV cache."""
    end = time.monotonic() + SETTLE_SECONDS
    while True:
        running, kv_usage = gauges(server)
        if (running == 0 and kv_usage == 0) or time.monotonic() > end:
            return running, kv_usage
        time.sleep(0.1)
