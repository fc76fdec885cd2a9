"""What to run and in which environment: pure functions from a profile to a command."""

from __future__ import annotations

import functools
import importlib.util
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from conformance.harness.checkpoint import draft_folder, target_folder
from conformance.harness.profile import Profile

MTP, PLAIN, REFUSED, SYNTHETIC = "mtp", "plain", "moe-refusal", "synthetic"
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
    """The launch of one arm: "mtp", "plain", or "moe-refusal", which asks for a MoE backend that must be refused."""
    return Launch(vllm_command(profile, arm), vllm_environment(profile, snapshots, inherited))


def vllm_command(profile: Profile, arm: str) -> tuple[str, ...]:
    """vLLM's OpenAI server as the profile wants it.

    The module is run rather than the console script, which a distribution not named "vllm" does not carry. All arms
    have the probe, so that they differ in nothing but what they are named after.
    """
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(target_folder(profile.pair))]
    command += [*profile.pair.serve_args, *profile.hardware.serve_args, "--worker-extension-cls", PROBE]
    if arm == MTP:
        speculative = {"method": "mtp", "model": str(draft_folder(profile.pair))}
        command += ["--speculative-config", json.dumps(speculative | {"num_speculative_tokens": profile.pair.k})]
        command += per_request_counts()
    if arm == REFUSED:
        command += ["--moe-backend", str(profile.hardware.unsupported_moe_backend)]
    return tuple(command)


@functools.cache
def per_request_counts() -> tuple[str, ...]:
    """The option that puts a request's own count of drafts into its answer, where the installed vLLM has it.

    Looked up in the source, because importing vLLM takes seconds. Without it acceptance is counted by group of
    requests.
    """
    found = importlib.util.find_spec("vllm")
    folders = found.submodule_search_locations if found else None
    for folder in folders or ():
        source = Path(folder) / "config" / "observability.py"
        if source.is_file() and "per_request_spec_decode_metrics" in source.read_text(encoding="utf-8"):
            return ("--per-request-spec-decode-metrics", "summary")
    return ()


def synthetic(launch: Launch, joint: Sequence[float]) -> Launch:
    """The same server, but vLLM itself accepts drafted tokens at random, with these joint rates at position 1 … k.

    Raises ValueError for a launch that does not draft.
    """
    command = list(launch.command)
    place = command.index("--speculative-config") + 1
    wanted = {"rejection_sample_method": "synthetic", "synthetic_acceptance_rates": list(joint)}
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
