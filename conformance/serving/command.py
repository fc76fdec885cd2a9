"""What to run and in which environment: pure functions from a profile to a command."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from conformance.checkpoints.headers import draft_folder, target_folder
from conformance.inside_vllm.plugin import SNAPSHOT_DIRECTORY
from conformance.profile.arms import MTP, REFUSED, SWEEP
from conformance.profile.profile import Profile
from conformance.serving.installed import SCHEDULE, Installed, installed_here

PROBE = "conformance.inside_vllm.probe.Probe"
# Settings of the engine that a user's shell may hold and that would change what is observed behind the profile's back.
FOREIGN = ("VLLM_", "OMP_", "KMP_", "GOMP_", "CONFORMANCE_", "CUDA_LAUNCH_BLOCKING", "FLASHINFER_")
KEPT = ("VLLM_CACHE_ROOT", "VLLM_CONFIG_ROOT", "FLASHINFER_WORKSPACE_BASE")


@dataclass(frozen=True)
class Launch:
    """A server to start. Host, port and served model name are added by whoever starts it."""

    command: tuple[str, ...]  # the first word is the Python that has vLLM
    environment: Mapping[str, str]
    end: tuple[str, ...] = ()  # a command that ends what is not a process of this machine


def vllm_launch(
    profile: Profile,
    arm: str,
    snapshots: Path,
    inherited: Mapping[str, str],
    installed: Callable[[], Installed] = installed_here,
) -> Launch:
    """The launch of one arm.

    "mtp", "plain", "sweep", which drafts as many tokens as it is told while it runs, or "moe-refusal", which asks for
    a MoE backend that must be refused.
    """
    return Launch(vllm_command(profile, arm, installed()), vllm_environment(profile, snapshots, inherited))


def vllm_command(profile: Profile, arm: str, installed: Installed | None = None) -> tuple[str, ...]:
    """vLLM's OpenAI server as the profile wants it.

    The module is run rather than the console script, which a distribution not named "vllm" does not carry. All arms
    have the probe, so that they differ in nothing but what they are named after. ``installed`` is the vLLM that will
    serve, where it is not this interpreter's.
    """
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(target_folder(profile.pair))]
    command += [*profile.pair.serve_args, *profile.hardware.serve_args, "--worker-extension-cls", PROBE]
    if arm in (MTP, SWEEP):
        command += [
            "--speculative-config",
            json.dumps(_speculative(profile, arm)),
            *per_request_counts(installed or installed_here()),
        ]
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


def per_request_counts(installed: Installed) -> tuple[str, ...]:
    """The option that puts a request's own count of drafts into its answer, where this vLLM has it.

    Without it acceptance is counted by group of requests.
    """
    return ("--per-request-spec-decode-metrics", "summary") if installed.counts_by_request else ()


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
    ours = {
        "HF_HUB_OFFLINE": "1",  # checkpoints are folders by now; nothing may come from elsewhere
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_SERVER_DEV_MODE": "1",  # for /collective_rpc; the server listens on loopback only
        SNAPSHOT_DIRECTORY: str(snapshots),
        # The processes of vLLM rename themselves and would overwrite the mark by which they are found at the end.
        "SPT_NOENV": "1",
    }
    return neutral(inherited) | ours | dict(profile.hardware.environment or {})


def neutral(inherited: Mapping[str, str]) -> dict[str, str]:
    """What of a shell's environment cannot interfere with what is observed."""
    return {name: value for name, value in inherited.items() if name in KEPT or not name.startswith(FOREIGN)}
