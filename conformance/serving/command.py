"""The command and the environment of a server, as pure functions of the profile."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from conformance.checkpoints.headers import draft_folder, target_folder
from conformance.inside_vllm.plugin import SNAPSHOT_DIRECTORY
from conformance.profile.arms import MTP, PLAIN, REFUSED, SERVED, SERVED_PLAIN, SWEEP
from conformance.profile.draft_schedule import SCHEDULE
from conformance.profile.graph_options import graph_options
from conformance.profile.profile import Profile
from conformance.serving.installed import Installed, installed_here

PROBE = "conformance.inside_vllm.probe.Probe"
# Engine settings in the user's shell, which would change the observations although the profile does not name them.
FOREIGN = ("VLLM_", "OMP_", "KMP_", "GOMP_", "CONFORMANCE_", "CUDA_LAUNCH_BLOCKING", "FLASHINFER_")
SOCKETS = "VLLM_RPC_BASE_PATH"  # the folder of vLLM's sockets; by default the temporary folder
KEPT = ("VLLM_CACHE_ROOT", "VLLM_CONFIG_ROOT", "FLASHINFER_WORKSPACE_BASE", SOCKETS)
# A socket's path has at most 107 bytes on Linux; the suite adds a folder of 21, vLLM a slash and a UUID of 36.
LONGEST_SOCKET_FOLDER = 107 - 37 - 21


@dataclass(frozen=True)
class Launch:
    """A server to start. The caller adds host, port and served model name."""

    command: tuple[str, ...]  # the first word is the Python that has vLLM
    environment: Mapping[str, str]
    end: tuple[str, ...] = ()  # a command that ends the server if it is not a process of this machine


def vllm_launch(
    profile: Profile,
    arm: str,
    snapshots: Path,
    inherited: Mapping[str, str],
    installed: Callable[[], Installed] = installed_here,
) -> Launch:
    """The launch of one arm.

    The arms are "mtp" and "plain", "served" and "served-plain" (the same two as people serve them), "sweep" (its draft
    length can be changed while it runs) and "moe-refusal" (it asks for a MoE backend that vLLM must refuse).
    """
    return Launch(vllm_command(profile, arm, installed()), vllm_environment(profile, snapshots, inherited))


def vllm_command(profile: Profile, arm: str, installed: Installed | None = None) -> tuple[str, ...]:
    """The command of vLLM's OpenAI server for this profile.

    The command runs the module, because only a distribution with the name "vllm" has the console script. All arms load
    the probe, so that they differ only in what they are named after. ``installed`` describes the vLLM that serves, if
    that is not this interpreter's vLLM.

    Raises:
        Unsupported: a served arm is asked for, and the hardware has no served configuration.
    """
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(target_folder(profile.pair))]
    hardware, as_served = profile.hardware, arm in (SERVED, SERVED_PLAIN)
    given = hardware.serve_args if as_served else hardware.measured
    command += [*profile.pair.serve_args, *given, "--worker-extension-cls", PROBE]
    if as_served:
        command += hardware.as_served().serve_args
    if arm in (MTP, SERVED, SWEEP):
        command += [
            "--speculative-config",
            json.dumps(_speculative(profile, arm)),
            *per_request_counts(installed or installed_here()),
        ]
    if arm in (MTP, PLAIN) and captures(profile) and (installed or installed_here()).counts_graphs:
        command += ["--cudagraph-metrics"]
    if arm == REFUSED:
        command += ["--moe-backend", str(profile.hardware.unsupported_moe_backend)]
    return tuple(command)


def captures(profile: Profile) -> bool:
    """Whether the measured servers have CUDA graphs."""
    return profile.hardware.sm is not None and not graph_options(profile.hardware, profile.pair.serve_args).eager


def _speculative(profile: Profile, arm: str) -> dict[str, Any]:
    speculative = {"method": "mtp", "model": str(draft_folder(profile.pair)), **(profile.pair.speculative or {})}
    if arm != SWEEP:
        return speculative | {"num_speculative_tokens": profile.pair.k}
    longest = profile.sizes.sweep_longest_draft
    # With a schedule, vLLM allows drafts of any length up to the longest. The last row also holds for larger batches.
    return speculative | {"num_speculative_tokens": longest, SCHEDULE: [[1, 1, longest]]}


def per_request_counts(installed: Installed) -> tuple[str, ...]:
    """The option that adds a request's own count of drafts to its answer, if this vLLM has it.

    Without this option, acceptance is counted for each group of requests.
    """
    return ("--per-request-spec-decode-metrics", "summary") if installed.counts_by_request else ()


def synthetic(launch: Launch, joint: Sequence[float]) -> Launch:
    """The same server, but vLLM accepts drafted tokens at random, with these joint rates at position 1 … k.

    Raises:
        ValueError: the launch does not draft.
    """
    return _change_speculative(launch, rejection_sample_method="synthetic", synthetic_acceptance_rates=list(joint))


def eager(launch: Launch) -> Launch:
    """The same server without compilation and CUDA graphs, so that hooks run in it."""
    return replace(launch, command=(*launch.command, "--enforce-eager"))


def with_draft_length(launch: Launch, k: int) -> Launch:
    """The same server, but it drafts k tokens a step.

    Raises:
        ValueError: the launch does not draft.
    """
    return _change_speculative(launch, num_speculative_tokens=k)


def _change_speculative(launch: Launch, **wanted: Any) -> Launch:
    """The same server with these settings of speculative decoding."""
    command = list(launch.command)
    position = command.index("--speculative-config") + 1
    command[position] = json.dumps(json.loads(command[position]) | wanted)
    return replace(launch, command=tuple(command))


def vllm_environment(profile: Profile, snapshots: Path, inherited: Mapping[str, str]) -> dict[str, str]:
    """The server's environment: the profile's settings, and the part of ``inherited`` that cannot interfere."""
    ours = {
        "HF_HUB_OFFLINE": "1",  # the checkpoints are local folders; nothing is downloaded
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_SERVER_DEV_MODE": "1",  # for /collective_rpc; the server listens on loopback only
        # Older vLLM guesses the address of a network card, which nobody reaches behind a VPN or without a route.
        "VLLM_HOST_IP": "127.0.0.1",
        SNAPSHOT_DIRECTORY: str(snapshots),
        # vLLM's processes rename themselves, which would overwrite the mark by which the suite finds and ends them.
        "SPT_NOENV": "1",
    }
    return _short_sockets(inherited) | neutral(inherited) | ours | dict(profile.hardware.environment or {})


def _short_sockets(inherited: Mapping[str, str]) -> dict[str, str]:
    """The setting that puts vLLM's sockets into /tmp if the path of the temporary folder is too long for them."""
    long = len(os.fsencode(temporary_folder(inherited))) > LONGEST_SOCKET_FOLDER
    return {SOCKETS: "/tmp"} if long else {}


def temporary_folder(environment: Mapping[str, str]) -> str:
    """The temporary folder that this environment names; empty if it names none."""
    return next((environment[name] for name in ("TMPDIR", "TEMP", "TMP") if environment.get(name)), "")


def shell() -> dict[str, str]:
    """This process's environment. Another thread may change it meanwhile: pytest sets a variable for each test."""
    return {name: value for name in list(os.environ) if (value := os.environ.get(name)) is not None}


def neutral(inherited: Mapping[str, str]) -> dict[str, str]:
    """The part of a shell's environment that cannot interfere with the observations."""
    return {name: value for name, value in inherited.items() if name in KEPT or not name.startswith(FOREIGN)}
