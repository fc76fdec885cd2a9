"""Features of a server that are served beside MTP, and how a server is started with each of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from conformance.profile.profile import Hardware

V1_RUNNER, V2_RUNNER = "v1_runner", "v2_runner"
AS_SERVED = "as_served"  # no feature: the servers that people serve, with which others are compared
WORKERS, CUSTOM_ALL_REDUCE = "workers", "custom_all_reduce"  # what a server says of its tensor parallelism


@dataclass(frozen=True)
class Feature:
    """One feature: settings of the server, and the same as arguments of vLLM's configuration and of its experts."""

    name: str  # for a reader
    options: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    arguments: Mapping[str, Any] = field(default_factory=dict)  # of EngineArgs
    workers: int = 1  # that the other servers must have
    asks_kernels: bool = False  # whether the experts' kernels must have it, too
    kernels: Mapping[str, Any] = field(default_factory=dict)  # of FusedMoEConfig
    changes: str = ""  # WORKERS or CUSTOM_ALL_REDUCE, if its answers are compared with those of the other servers


FEATURES: Mapping[str, Feature] = {
    "batch_invariance": Feature("batch invariance", environment={"VLLM_BATCH_INVARIANT": "1"}, asks_kernels=True),
    "lora": Feature(
        "LoRA",
        ("--enable-lora",),
        arguments={"enable_lora": True},
        asks_kernels=True,
        kernels={"is_lora_enabled": True},
    ),
    "expert_parallel": Feature(
        "expert parallelism", ("--enable-expert-parallel",), arguments={"enable_expert_parallel": True}, workers=2
    ),
    "one_worker": Feature("one worker", ("--tensor-parallel-size", "1"), workers=2, changes=WORKERS),
    "no_custom_all_reduce": Feature(
        "all-reduce by NCCL alone",
        ("--disable-custom-all-reduce",),
        arguments={"disable_custom_all_reduce": True},
        workers=2,
        changes=CUSTOM_ALL_REDUCE,
    ),
    V1_RUNNER: Feature("model runner V1", environment={"VLLM_USE_V2_MODEL_RUNNER": "0"}),
    V2_RUNNER: Feature("model runner V2", environment={"VLLM_USE_V2_MODEL_RUNNER": "1"}),
}


def other_runner(hardware: Hardware) -> str:
    """The model runner that the other servers do not use: V2 on a CPU, else V1."""
    return V2_RUNNER if hardware.sm is None else V1_RUNNER
