"""The configuration that vLLM arrived at in the server with MTP and in the one without."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from conformance.evidence.folder import Evidence
from conformance.observers.draft_load import ask
from conformance.observers.refusals import require_sound_pair
from conformance.profile.arms import MTP, PLAIN
from conformance.profile.profile import Profile
from conformance.serving.pool import ServerPool


def observe(profile: Profile, servers: ServerPool, evidence: Evidence) -> Mapping[str, Any]:
    """Every field of the configuration in the first worker of each server.

    Where only one server fits, the one without MTP comes first: it still runs after the near-ties were scored.

    Raises:
        ObservationError: a server did not start, or its probe gave no usable answer.
        Unsupported: there is no server without MTP, or this vLLM does not tell.
    """
    require_sound_pair(profile, servers, evidence)
    seconds = profile.hardware.bounds.request_seconds
    with servers.exclusive():
        plain = ask(servers.plain(), "conformance_config", seconds)
        mtp = ask(servers.mtp(), "conformance_config", seconds)
    return {"vllm_version": mtp["vllm_version"], MTP: mtp["fields"], PLAIN: plain["fields"]}
