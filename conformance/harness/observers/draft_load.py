"""What vLLM's loader put into the draft and the target, from the snapshot taken inside the server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from conformance.harness.errors import ObservationError, Unsupported
from conformance.harness.evidence import Evidence
from conformance.harness.observers.refusals import require_sound_pair
from conformance.harness.profile import Profile
from conformance.harness.server import Server
from conformance.harness.servers import Servers


def observe(profile: Profile, servers: Servers, evidence: Evidence) -> Mapping[str, Any]:
    """Parameters and linear layers of both models in the first worker."""
    require_sound_pair(profile, servers, evidence)
    with servers.exclusive():
        server, seconds = servers.mtp(), profile.hardware.bounds.request_seconds
        snapshot = ask(server, "conformance_snapshot", seconds)
    models = snapshot["models"]
    if "draft" not in models or "target" not in models:
        raise ObservationError(f"the load snapshot holds {sorted(models)}, not target and draft", server.log_tail())
    return {
        "vllm_version": snapshot["vllm_version"],
        "draft": models["draft"],
        "target": models["target"],
    }


def ask(server: Server, method: str, seconds: float, **arguments: Any) -> dict[str, Any]:
    """What the probe in the first worker says; Unsupported where this vLLM does not tell."""
    answers = server.call(method, seconds, **arguments)
    if not answers or not isinstance(answers[0], dict):
        raise ObservationError(f"the probe answered {method} with {str(answers)[:200]}", server.log_tail())
    answer: dict[str, Any] = answers[0]
    if "unsupported" in answer:
        raise Unsupported(str(answer["unsupported"]))
    return answer
