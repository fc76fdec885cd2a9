"""Tool calls and thoughts that ``max_tokens`` cuts at many places, in one piece and streamed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from conformance.errors import ObservationError
from conformance.evidence.folder import Evidence
from conformance.observers.served_answers import CHAT, GREEDY, as_served, ask, ask_at_once, ask_both
from conformance.profile.profile import Profile
from conformance.serving.pool import ServerPool
from conformance.serving.server import Server
from conformance.workload.cut_questions import QUESTIONS

MOST_TOKENS, CUTS = 200, 10  # of a whole answer, and how many places it is cut at


def observe(profile: Profile, servers: ServerPool, evidence: Evidence) -> Mapping[str, Any]:
    """The whole answers of the server without MTP, and every cut one of both servers in both deliveries.

    Raises:
        ObservationError: a server has died, or a whole answer is too short to be cut.
    """
    seconds = profile.hardware.bounds.request_seconds
    with as_served(profile, servers, evidence):
        whole = {name: _whole(servers.served_plain(), name, seconds) for name in QUESTIONS}
        cuts = {name: places_to_cut(len(answer["choices"][0]["token_ids"])) for name, answer in whole.items()}
        arms = ask_both(profile, servers, partial(_cut, cuts=cuts, seconds=seconds))
    return {"whole": whole, "arms": arms}


def places_to_cut(tokens: int) -> list[int]:
    """At most ``CUTS`` numbers of tokens, spread over the answer."""
    return sorted({max(1, round(tokens * part / (CUTS + 1))) for part in range(1, CUTS + 1)} - {tokens})


def _whole(server: Server, name: str, seconds: float) -> dict[str, Any]:
    reply = ask(server, CHAT, {**GREEDY, "max_tokens": MOST_TOKENS, **QUESTIONS[name]}, seconds)
    if not reply["choices"] or len(reply["choices"][0]["token_ids"]) < 2:
        raise ObservationError(f"the question for a {name} got no answer that can be cut: {str(reply)[:300]}")
    return reply


def _cut(server: Server, cuts: Mapping[str, Sequence[int]], seconds: float) -> list[dict[str, Any]]:
    rows = [(name, tokens, stream) for name, places in cuts.items() for tokens in places for stream in (False, True)]
    asked = [{**GREEDY, **QUESTIONS[name], "max_tokens": tokens, "stream": stream} for name, tokens, stream in rows]
    replies = ask_at_once(server, CHAT, asked, seconds)
    return [
        {"question": name, "max_tokens": tokens, "stream": stream, "reply": reply}
        for (name, tokens, stream), reply in zip(rows, replies, strict=True)
    ]
