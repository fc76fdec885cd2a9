"""``python -m conformance.inside_vllm.combination_support``: what this vLLM refuses beside MTP on this machine.

Standard input is JSON: ``target`` and ``draft`` (folders), ``k``, ``quantisation`` of the target, and ``workers``. The
last line of standard output is JSON: the version, and by feature vLLM's reason for a refusal, or "" if it accepts the
feature. No server starts: vLLM makes its configuration, and its experts' kernels answer.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from conformance.errors import Unsupported
from conformance.inside_vllm import adapters, oracle_adapters
from conformance.profile.combined_features import FEATURES, Feature
from conformance.profile.moe_facts import load_moe_facts

LONGEST = 300  # characters of a reason
NVFP4 = "nvfp4"
ASKED = NVFP4, "bf16"  # quantisations whose kernels are asked


@dataclass(frozen=True)
class Pair:
    """What is served, and by how many workers."""

    target: Path
    draft: Path
    k: int
    quantisation: str
    workers: int


def main() -> None:
    """Answer the question in standard input. Fails if vLLM refuses the pair without any feature."""
    asked = json.load(sys.stdin)
    pair = Pair(Path(asked["target"]), Path(asked["draft"]), asked["k"], asked["quantisation"], asked["workers"])
    try:
        adapters.engine_config(pair.target, pair.draft, pair.k)
        reasons = {name: refusal(pair, feature) for name, feature in FEATURES.items()}
    except Unsupported as reason:
        print(json.dumps({"unsupported": str(reason)}))
    else:
        print(json.dumps({"vllm_version": adapters.vllm_version(), "refusals": reasons}))


def refusal(pair: Pair, feature: Feature) -> str:
    """vLLM's reason, or "".

    Raises:
        Unsupported: this vLLM lacks a name that the question needs.
    """
    if feature.workers > pair.workers:
        return f"{feature.name} needs {feature.workers} workers, and {pair.workers} serves"
    with mock.patch.dict(os.environ, dict(feature.environment)):
        try:
            config = adapters.engine_config(pair.target, pair.draft, pair.k, **feature.arguments)
            return kernel_refusal(config, pair.quantisation, feature)
        except Unsupported:
            raise
        except Exception as error:  # any error of vLLM is its reason
            return shortened(f"{type(error).__name__}: {error}")


def kernel_refusal(config: Any, quantisation: str, feature: Feature) -> str:
    """Why no kernel for the experts has this feature; "" if one has it, or if the target has no experts.

    Of quantised experts, only those in NVFP4 are asked.

    Raises:
        Unsupported: this vLLM lacks a name that the question needs.
    """
    text = adapters.follow(config, "model_config.hf_text_config")
    if not feature.asks_kernels or not getattr(text, "num_experts", None) or quantisation not in ASKED:
        return ""
    experts = oracle_adapters.moe_config(load_moe_facts().moe, **feature.kernels)
    if quantisation == NVFP4 and not adapters.on_cpu():  # a CPU decodes NVFP4 and takes the kernels without it
        oracle_adapters.select(experts)
        return ""
    answers = oracle_adapters.unquantised(experts)
    if any(supported for supported, _ in answers.values()):
        return ""
    return shortened("; ".join(f"{kernel}: {reason}" for kernel, (_, reason) in answers.items()))


def shortened(reason: str) -> str:
    """One line, without the details that pydantic adds."""
    line = " ".join(reason.split())
    _, marked, said = line.partition("Value error, ")
    return (said.partition(" [type=")[0] if marked else line)[:LONGEST]


if __name__ == "__main__":
    main()
