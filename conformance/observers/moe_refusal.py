"""What happens if a server is started with a MoE backend that this hardware does not support."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from conformance.errors import Unsupported
from conformance.evidence.folder import Evidence
from conformance.observers.moe import require_experts
from conformance.observers.refusals import require_sound_pair
from conformance.profile.arms import REFUSED
from conformance.profile.profile import Profile
from conformance.serving import logs
from conformance.serving.pool import ServerPool


def observe(profile: Profile, servers: ServerPool, evidence: Evidence) -> Mapping[str, Any]:
    """The exit code (null if the server came up or had to be stopped), vLLM's reason, and the end of the log.

    Raises:
        Unsupported: the target has no experts, the hardware names no such backend, or the servers are attached.
    """
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
