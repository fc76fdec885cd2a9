"""Typed tool calls as an agent gets them from the server with MTP: in one piece and streamed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from conformance.harness.evidence import Evidence
from conformance.harness.observers.refusals import require_sound_pair
from conformance.harness.profile import Profile
from conformance.harness.servers import Servers
from conformance.harness.workload import TOOLS, Answer, client, load_prompts, spread


def observe(profile: Profile, servers: Servers, evidence: Evidence) -> Mapping[str, Any]:
    """For each prompt the call that is expected and what came back in either way."""
    require_sound_pair(profile, servers, evidence)
    prompts = spread(load_prompts(profile.prompts / TOOLS), profile.sizes.tool_prompts)
    with servers.beside(), client(servers.mtp(), profile.hardware.bounds.request_seconds) as asking:
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
