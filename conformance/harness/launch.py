"""What to run and in which environment: pure functions from a profile to a command."""

from __future__ import annotations

import functools
import importlib.util
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from conformance.harness.checkpoint import draft_folder, target_folder
from conformance.harness.profile import Profile

MTP, PLAIN, REFUSED, SYNTHETIC, SWEEP = "mtp", "plain", "moe-refusal", "synthetic", "sweep"
SCHEDULE = "num_speculative_tokens_per_batch_size"
PROBE = "conformance.inside_vllm.probe.Probe"
# Settings of the engine that a user's shell may hold and that would change what is observed behind the profile's back.
FOREIGN = ("VLLM_", "OMP_", "KMP_", "GOMP_", "CONFORMANCE_", "CUDA_LAUNCH_BLOCKING", "FLASHINFER_")
KEPT = ("VLLM_CACHE_ROOT", "VLLM_CONFIG_ROOT", "FLASHINFER_WORKSPACE_BASE")


@dataclass(frozen=True)
class Launch:
    """A server to start. Host, port and served model name are added by whoever starts it."""

    command: tuple[str, ...]
    environment: Mapping[str, str]


def vllm_launch(profile: Profile, arm: str, snapshots: Path, inherited: Mapping[str, str]) -> Launch:
    """The launch of one arm.

    "mtp", "plain", "sweep", which drafts as many tokens as it is told while it runs, or "moe-refusal", which asks for
    a MoE backend that must be refused.
    """
    return Launch(vllm_command(profile, arm), vllm_environment(profile, snapshots, inherited))


def vllm_command(profile: Profile, arm: str) -> tuple[str, ...]:
    """vLLM's OpenAI server as the profile wants it.

    The module is run rather than the console script, which a distribution not named "vllm" does not carry. All arms
    have the probe, so that they differ in nothing but what they are named after.
    """
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(target_folder(profile.pair))]
    command += [*profile.pair.serve_args, *profile.hardware.serve_args, "--worker-extension-cls", PROBE]
    if arm in (MTP, SWEEP):
        command += ["--speculative-config", json.dumps(_speculative(profile, arm)), *per_request_counts()]
    if arm == REFUSED:
        command += ["--moe-backend", str(profile.hardware.unsupported_moe_backend)]
    return tuple(command)


def _speculative(profile: Profile, arm: str) -> dict[str, Any]:
    speculative = {"method": "mtp", "model": str(draft_folder(profile.pair)), **(profile.pair.speculative or {})}
    if arm == MTP:
        return speculative | {"num_speculative_tokens": profile.pair.k}
    longest = profile.sizes.sweep_longest_draft
    # With a schedule, drafts of any length up to the longest are legal. Its last row holds for larger batches too.
    return speculative | {"num_speculative_tokens": longest, SCHEDULE: [[1, 1, longest]]}


@functools.cache
def per_request_counts() -> tuple[str, ...]:
    """The option that puts a request's own count of drafts into its answer, where the installed vLLM has it.

    Without it acceptance is counted by group of requests.
    """
    told = _has_setting("observability", "per_request_spec_decode_metrics")
    return ("--per-request-spec-decode-metrics", "summary") if told else ()


@functools.cache
def draft_schedule() -> bool:
    """Whether the installed vLLM knows drafts whose length changes while it runs."""
    return _has_setting("speculative", SCHEDULE)


def _has_setting(part: str, name: str) -> bool:
    """Whether vllm/config/<part>.py has the name; it is read, since importing vLLM takes seconds."""
    found = importlib.util.find_spec("vllm")
    sources = [Path(folder) / "config" / f"{part}.py" for folder in (found and found.submodule_search_locations) or ()]
    return any(source.is_file() and name in source.read_text(encoding="utf-8") for source in sources)


def synthetic(launch: Launch, joint: Sequence[float]) -> Launch:
    """The same server, but vLLM itself accepts drafted tokens at random, with these joint rates at position 1 … k.

    Raises ValueError for a launch that does not draft.
    """
    return _drafting(launch, rejection_sample_method="synthetic", synthetic_acceptance_rates=list(joint))


def with_draft_length(launch: Launch, k: int) -> Launch:
    """The same server, but it drafts k tokens a step; ValueError for a launch that does not draft."""
    return _drafting(launch, num_speculative_tokens=k)


def _drafting(launch: Launch, **wanted: Any) -> Launch:
    """The same server, with these settings of its speculative decoding."""
    command = list(launch.command)
    place = command.index("--speculative-config") + 1
    command[place] = json.dumps(json.loads(command[place]) | wanted)
    return replace(launch, command=tuple(command))


def vllm_environment(profile: Profile, snapshots: Path, inherited: Mapping[str, str]) -> dict[str, str]:
    """What the server finds in its environment: the profile's settings, and of ``inherited`` what cannot interfere."""
    neutral = {name: value for name, value in inherited.items() if name in KEPT or not name.startswith(FOREIGN)}
    ours = {
        "HF_HUB_OFFLINE": "1",  # checkpoints are folders by now; nothing may come from elsewhere
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_SERVER_DEV_MODE": "1",  # for /collective_rpc; the server listens on loopback only
        "CONFORMANCE_SNAPSHOT_DIR": str(snapshots),
        # The processes of vLLM rename themselves and would overwrite the mark by which they are found at the end.
        "SPT_NOENV": "1",
    }
    return neutral | ours | dict(profile.hardware.environment or {})
