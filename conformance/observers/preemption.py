"""Answers to so many requests at once that the cache cannot hold them, beside the answers to the same few at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from conformance.errors import Unsupported
from conformance.evidence.folder import Evidence
from conformance.observers.context_limit import LEAD, repeated
from conformance.observers.served_answers import (
    COMPLETIONS,
    GREEDY,
    Reply,
    as_served,
    ask_at_once,
    ask_both,
    drafts,
    prompt_ids,
)
from conformance.profile.profile import Profile
from conformance.serving.metrics import cache_blocks, preemptions, read_counters
from conformance.serving.pool import ServerPool
from conformance.serving.server import Server
from conformance.workload.prompts import LONG, load_prefixes

REQUESTS, FEW = 24, 8  # at once in the crowd, and in the comparison
# On a CPU, vLLM's blocks hold 128 tokens of a group of layers. A prompt fits into one block of each group. Its answer
# needs one more of each after some tokens, and is so long that no request ends before the crowd has filled the cache,
# even with MTP.
PROMPT, TOKENS = 110, 56


def observe(profile: Profile, servers: ServerPool, evidence: Evidence) -> Mapping[str, Any]:
    """The answers of both servers, crowded and few at a time, and how often each server preempted a request.

    Raises:
        ObservationError: a server has died.
        Unsupported: the cache of this hardware holds more than these requests need.
    """
    if not profile.hardware.as_served().small_cache:
        name = profile.hardware.name
        raise Unsupported(f"The cache of hardware {name} holds these requests, so vLLM preempts none of them.")
    seconds = profile.hardware.bounds.request_seconds
    with as_served(profile, servers, evidence):
        work = partial(crowd_and_few, prompts=prompts(profile, servers.served_plain(), seconds), seconds=seconds)
        return {"requests": REQUESTS, "asked": TOKENS, "arms": ask_both(profile, servers, work)}


def prompts(profile: Profile, server: Server, seconds: float) -> list[list[int]]:
    """The prompt of each request.

    Raises:
        ObservationError: the server does not tell the token ids of a text.
    """
    text = load_prefixes(profile.prompts / LONG)[-1].text
    return list(rotated(repeated(prompt_ids(server, text, seconds), PROMPT + REQUESTS), PROMPT))


def rotated(ids: Sequence[int], tokens: int) -> Iterator[list[int]]:
    """Prompts that differ from their second token on, so that no two share a block of the cache."""
    return ([ids[0], *ids[1 + number : tokens + number]] for number in range(REQUESTS))


def crowd_and_few(server: Server, prompts: Sequence[Sequence[int]], seconds: float) -> dict[str, Any]:
    """The replies to these prompts, a few at a time and then all at once, and what the server counted.

    Raises:
        ObservationError: the server has died.
    """
    groups = [prompts[at : at + FEW] for at in range(0, len(prompts), FEW)]
    few = _counted(server, groups, "few", seconds)
    return {"cache_blocks": cache_blocks(server), "few": few, "crowd": _counted(server, [prompts], "crowd", seconds)}


def _counted(server: Server, groups: Sequence[Sequence[Sequence[int]]], salt: str, seconds: float) -> dict[str, Any]:
    """The replies of all groups, one group after another, and what the server counted meanwhile."""
    before, drafted = preemptions(server), _drafted(server)
    replies: list[Reply] = []
    for group in groups:
        asked = [
            {**GREEDY, **LEAD, "prompt": prompt, "max_tokens": TOKENS, "ignore_eos": True, "cache_salt": salt}
            for prompt in group
        ]
        replies += ask_at_once(server, COMPLETIONS, asked, seconds)
    made, accepted = (now - then for now, then in zip(_drafted(server), drafted, strict=True))
    return {"preemptions": preemptions(server) - before, "drafts": made, "accepted": accepted, "replies": replies}


def _drafted(server: Server) -> tuple[int, int]:
    """Drafts and accepted tokens so far; none without MTP."""
    if not drafts(server):
        return 0, 0
    counted = read_counters(server)
    return counted.drafts, counted.accepted
