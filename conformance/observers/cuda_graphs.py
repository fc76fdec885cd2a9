"""The CUDA graph that the installed vLLM would use for every batch of decoding, by hardware profile and k; no GPU."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from conformance.errors import Unsupported
from conformance.evidence.folder import Evidence
from conformance.profile.graph_options import GraphOptions, graph_options
from conformance.profile.profile import Hardware, Profile, every_hardware
from conformance.serving.executors import HERE, Executor
from conformance.serving.json_subprocess import Together, ask_subprocess
from conformance.serving.pool import NOT_INSTALLED, ServerPool

COMMAND = (sys.executable, "-m", "conformance.inside_vllm.cuda_graphs")
DRAFTED = range(9)  # tokens a step: none, and 1 to 8, the longest draft of the sweep


@dataclass(frozen=True)
class Case:
    """A hardware profile with its options; ``sm`` is its compute capability times ten."""

    hardware: str
    sm: int
    options: GraphOptions


def observe(profile: Profile, servers: ServerPool, _evidence: Evidence) -> Mapping[str, Any]:
    """The captured sizes and the graph of each batch; for this profile's hardware, with the options of its pair."""
    servers.require_own_servers(NOT_INSTALLED)
    with servers.shared():  # importing vLLM uses a core for ten seconds
        return ask_vllm(cases(profile), executor=servers.executor, together=servers.together)


def cases(profile: Profile | None = None) -> list[Case]:
    """Every GPU of fixtures/hardware, and the hardware of this profile with the options of its pair."""
    known: dict[str, tuple[Hardware, tuple[str, ...]]] = {each.name: (each, ()) for each in every_hardware()}
    if profile is not None:
        known[profile.hardware.name] = (profile.hardware, profile.pair.serve_args)
    return [
        Case(name, hardware.sm, graph_options(hardware, more))
        for name, (hardware, more) in known.items()
        if hardware.sm is not None
    ]


def request(asked: Sequence[Case]) -> list[dict[str, Any]]:
    """The input of ``conformance.inside_vllm.cuda_graphs``: the settings of each case at every k.

    A case without ``--max-num-seqs`` or ``--max-num-batched-tokens`` is left out: vLLM's default depends on the GPU.
    """
    return [_settings(case, k) for case in _captured(asked) for k in DRAFTED]


def ask_vllm(
    asked: Sequence[Case],
    command: Sequence[str] = COMMAND,
    executor: Executor = HERE,
    together: Together | None = None,
) -> dict[str, Any]:
    """The answers for these cases at every k, from a process of its own.

    Raises:
        ObservationError: the process gives no answer.
        Unsupported: this vLLM lacks a name that the question needs.
    """
    settings = request(asked)
    found = ask_subprocess(
        command,
        settings,
        doing="asking for CUDA graphs",
        failed="vLLM gave no CUDA graphs",
        executor=executor,
        together=together,
    )
    if "unsupported" in found:
        raise Unsupported(str(found["unsupported"]))
    names = [case.hardware for case in _captured(asked) for _ in DRAFTED]
    rows = [
        {"hardware": name, "settings": given} | answer
        for name, given, answer in zip(names, settings, found["answers"], strict=True)
    ]
    return {
        "vllm_version": found["vllm_version"],
        "rows": rows,
        "eager": [case.hardware for case in asked if case.options.eager],
    }


def _captured(asked: Sequence[Case]) -> list[Case]:
    return [case for case in asked if not case.options.eager and _complete(case.options)]


def _complete(options: GraphOptions) -> bool:
    return options.max_num_seqs is not None and options.max_num_batched_tokens is not None


def _settings(case: Case, k: int) -> dict[str, Any]:
    options = asdict(case.options)
    del options["eager"]
    return {"sm": case.sm, "k": k, **options}
