"""What happens when the server is told to use a MoE backend that this hardware cannot have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from conformance.harness import logs
from conformance.harness.errors import Unsupported
from conformance.harness.evidence import Evidence
from conformance.harness.launch import REFUSED
from conformance.harness.observers.moe import require_experts
from conformance.harness.observers.refusals import require_sound_pair
from conformance.harness.profile import Profile
from conformance.harness.servers import Servers


def observe(profile: Profile, servers: Servers, evidence: Evidence) -> Mapping[str, Any]:
    """The exit code (null if it came up or had to be stopped), vLLM's reason, and the end of the log."""
    require_sound_pair(profile, servers, evidence)
    require_experts(profile.pair)
    backend = profile.hardware.unsupported_moe_backend
    if backend is None:
        raise Unsupported(f"Hardware {profile.hardware.name} names no MoE backend that must be refused.")
    attempt = servers.attempt(REFUSED)
    text = logs.read(attempt.log)
    return {
        "backend": backend,
        "came_up": attempt.came_up,
        "exit_code": attempt.exit_code,
        "reason": None if attempt.came_up else logs.telling_line(text),
        "log_tail": logs.tail(text),
        "seconds": attempt.seconds,
    }
