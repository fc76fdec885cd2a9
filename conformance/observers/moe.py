"""The kernel that serves the target's experts, according to the layers and to the log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from conformance.checkpoints.headers import read_json, target_folder
from conformance.checkpoints.pairing import text_keys
from conformance.errors import Unsupported
from conformance.evidence.folder import Evidence
from conformance.observers.draft_load import ask
from conformance.observers.refusals import require_sound_pair
from conformance.profile.profile import Pair, Profile
from conformance.serving import logs
from conformance.serving.pool import ServerPool

LOG_LINES = r"MoE backend|NVFP4 MoE"


def observe(profile: Profile, servers: ServerPool, evidence: Evidence) -> Mapping[str, Any]:
    """The class of experts, backend and quantisation method of every MoE layer, and the log lines about them.

    Raises:
        Unsupported: the target has no experts, or this vLLM lacks a name that the probe needs.
    """
    require_sound_pair(profile, servers, evidence)
    require_experts(profile.pair)
    with servers.exclusive():
        server = servers.mtp()
        seen = ask(server, "conformance_moe", profile.hardware.bounds.request_seconds)
    if "unsupported" in seen["layers"]:
        raise Unsupported(str(seen["layers"]["unsupported"]))
    lines = None if servers.attached else list(dict.fromkeys(logs.lines_with(logs.read(server.log), LOG_LINES)))
    return {"vllm_version": seen["vllm_version"], "layers": seen["layers"], "log_lines": lines}


def require_experts(pair: Pair) -> None:
    """Require that the target has experts.

    Raises:
        Unsupported: the target is dense.
    """
    if not text_keys(read_json(target_folder(pair) / "config.json")).table.get("enable_moe_block"):
        raise Unsupported(f"The target of {pair.name} has no experts, so it needs no MoE backend.")
