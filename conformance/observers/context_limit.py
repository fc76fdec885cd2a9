"""Prompts longer than a chunk, among running answers, up to the end of the context and beyond it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import httpx

from conformance.evidence.folder import Evidence
from conformance.observers.served_answers import (
    COMPLETIONS,
    GREEDY,
    Reply,
    as_served,
    ask,
    ask_at_once,
    ask_both,
    prompt_ids,
)
from conformance.profile.profile import Profile
from conformance.serving.pool import ServerPool
from conformance.serving.server import Server
from conformance.workload.prompts import LONG, SAMPLING, load_prefixes

RUNNING = 4  # answers that run while the long prompts are read
TOKENS = 40  # of each of these answers
LEAD = {"logprobs": 2}  # to see how far the most likely token leads


def observe(profile: Profile, servers: ServerPool, evidence: Evidence) -> Mapping[str, Any]:
    """Answers that end exactly at the end of the context, among others and alone, and requests beyond it."""
    seconds = profile.hardware.bounds.request_seconds
    text = load_prefixes(profile.prompts / LONG)[-1].text
    short = [row.text for row in load_prefixes(profile.prompts / SAMPLING)][:RUNNING]
    with as_served(profile, servers, evidence):
        plain = servers.served_plain()
        longest = context(plain, seconds)
        ids = repeated(prompt_ids(plain, text, seconds), longest)
        work = partial(_all, ids=ids, short=short, k=profile.pair.k, seconds=seconds)
        return {"k": profile.pair.k, "context": longest, "arms": ask_both(profile, servers, work)}


def context(server: Server, seconds: float) -> int:
    """The tokens of the longest request.

    Raises:
        ObservationError: the server does not tell it.
    """
    try:
        answer = server.request("GET", "/v1/models", seconds).json()
        return int(answer["data"][0]["max_model_len"])
    except (httpx.HTTPError, ValueError, KeyError, TypeError, IndexError) as error:
        raise server.failure(f"it does not tell its max_model_len ({type(error).__name__}: {error})") from None


def repeated(ids: Sequence[int], tokens: int) -> list[int]:
    """The ids, again and again after their first one, up to so many tokens."""
    first, *rest = ids
    return [first, *(rest * (tokens // len(rest) + 1))][:tokens]


def _all(server: Server, ids: Sequence[int], short: Sequence[str], k: int, seconds: float) -> dict[str, Any]:
    whole = {**GREEDY, **LEAD, "ignore_eos": True}
    ends = [{**whole, "prompt": ids[: len(ids) - left], "max_tokens": left} for left in range(1, k + 3)]
    running = [{**whole, "prompt": text, "max_tokens": TOKENS} for text in short]
    beyond = [{**whole, "prompt": ids[: len(ids) - left], "max_tokens": left + 1} for left in (1, k)]
    full = [{**whole, "prompt": [*ids, *ids[1 : 1 + more]], "max_tokens": 1} for more in (0, 1)]
    mixed = ask_at_once(server, COMPLETIONS, [*running, *ends], seconds)
    alone: list[Reply] = [ask(server, COMPLETIONS, ends[-1], seconds)]
    return {
        "running": _rows(_asked(running), mixed[: len(running)]),
        "ends": _rows(_asked([*ends, ends[-1]]), [*mixed[len(running) :], *alone]),
        "beyond": _rows(_asked(beyond), ask_at_once(server, COMPLETIONS, beyond, seconds)),
        "full": _rows(_asked(full), ask_at_once(server, COMPLETIONS, full, seconds)),
    }


def _asked(questions: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{"asked": question["max_tokens"]} for question in questions]


def _rows(facts: Sequence[Mapping[str, Any]], replies: Sequence[Reply]) -> list[dict[str, Any]]:
    return [{**row, "reply": reply} for row, reply in zip(facts, replies, strict=True)]
