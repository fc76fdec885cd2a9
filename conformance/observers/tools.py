"""Typed tool calls that an agent gets from the server with MTP, in one piece and streamed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from conformance.evidence.folder import Evidence
from conformance.observers.refusals import require_sound_pair
from conformance.profile.profile import Profile
from conformance.serving.pool import ServerPool
from conformance.workload.client import Answer, client
from conformance.workload.prompts import TOOLS, load_prompts, spread


def observe(profile: Profile, servers: ServerPool, evidence: Evidence) -> Mapping[str, Any]:
    """The expected call for each prompt, and both deliveries of the answer."""
    require_sound_pair(profile, servers, evidence)
    prompts = spread(load_prompts(profile.prompts / TOOLS), profile.sizes.tool_prompts)
    with servers.shared(), client(servers.mtp(), profile.hardware.bounds.request_seconds) as asking:
        rows = [
            {
                "id": prompt.id,
                "expected": prompt.expected,
                "whole": _delivered(asking.ask(prompt)),
                "streamed": _delivered(asking.ask(prompt, stream=True)),
            }
            for prompt in prompts
        ]
    return {"prompts": rows}


def _delivered(answer: Answer) -> dict[str, Any]:
    return {
        "calls": [dict(call) for call in answer.tool_calls],
        "content": answer.content,
        "reasoning": answer.reasoning,
        "finish_reason": answer.finish_reason,
    }
