"""The wiring of the draft in the running server, the draft positions in /metrics, and how much it drafts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from conformance.evidence.folder import Evidence
from conformance.observers.draft_load import ask
from conformance.observers.refusals import require_sound_pair
from conformance.profile.profile import Profile
from conformance.serving.metrics import drafted_positions, read_after, read_positions, read_when_still
from conformance.serving.pool import ServerPool
from conformance.serving.server import NoJSON, Server, json_of, one_token

STEPS = 3  # of a perfect draft, in the answer that shows how many tokens are drafted a step


def observe(profile: Profile, servers: ServerPool, evidence: Evidence) -> Mapping[str, Any]:
    """The probe's description of the first worker, the ``position`` labels of /metrics, and one answer's drafts."""
    require_sound_pair(profile, servers, evidence)
    seconds = profile.hardware.bounds.request_seconds
    with servers.exclusive():
        server = servers.mtp()
        return {
            "k": profile.pair.k,
            "described": ask(server, "conformance_describe", seconds),
            "metrics_positions": read_positions(server),
            "drafted": _drafted(server, STEPS * profile.pair.k, seconds),
        }


def _drafted(server: Server, tokens: int, seconds: float) -> dict[str, int]:
    """The counters for an answer of so many tokens; the labels of /metrics exist before the first draft.

    Raises:
        ObservationError: the server gives no usable answer.
    """
    if not drafted_positions(server):
        return {"drafts": 0, "draft_tokens": 0}
    before = read_when_still(server)
    question = one_token(server.model) | {"max_tokens": tokens, "ignore_eos": True}
    try:
        answer = json_of(server, "POST", "/v1/chat/completions", seconds, question)
        counted = read_after(server, before, answer["usage"]["completion_tokens"]) - before
    except (NoJSON, KeyError, TypeError) as problem:
        raise server.failure(f"a request for {tokens} tokens failed: {problem}") from None
    return {"drafts": counted.drafts, "draft_tokens": counted.draft_tokens}
