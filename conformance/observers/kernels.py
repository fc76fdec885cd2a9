"""The names of the kernels that the device executes for an answer, from torch's profiler in the worker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from conformance.evidence.folder import Evidence
from conformance.observers.draft_load import ask
from conformance.observers.moe import require_experts
from conformance.observers.refusals import require_sound_pair
from conformance.profile.profile import Profile
from conformance.serving.pool import ServerPool
from conformance.workload.client import client
from conformance.workload.prompts import MIXED, load_prompts

TOKENS = 8  # a few steps; every layer runs in each step


def observe(profile: Profile, servers: ServerPool, evidence: Evidence) -> Mapping[str, Any]:
    """How often each kernel (on a CPU: operator) runs for one short answer of the server with MTP."""
    require_sound_pair(profile, servers, evidence)
    require_experts(profile.pair)
    seconds = profile.hardware.bounds.request_seconds
    prompt = replace(load_prompts(profile.prompts / MIXED)[0], max_tokens=TOKENS)
    with servers.exclusive(), client(server := servers.mtp(), seconds) as asking:
        asking.ask(prompt, ignore_eos=True)  # this finishes compiling and tuning at first use
        begun = ask(server, "conformance_kernels_begin", seconds)
        try:
            asking.ask(prompt, ignore_eos=True)
        finally:
            seen = ask(server, "conformance_kernels_end", seconds)
    return {"vllm_version": begun["vllm_version"], **seen}
