"""vLLM's selection of MoE kernels with known defects put back into its real code, one after another.

It runs as a program, because it imports vLLM. It prints one line of JSON: what the suite's walk sees, by exhibit.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any
from unittest import mock

from vllm.model_executor.layers.fused_moe import activation
from vllm.model_executor.layers.fused_moe import config as moe_config
from vllm.model_executor.layers.fused_moe.experts import (
    cutlass_moe,
    flashinfer_cutlass_moe,
    marlin_moe,
    trtllm_nvfp4_moe,
)
from vllm.model_executor.layers.fused_moe.oracle import nvfp4, unquantized

from conformance.inside_vllm import oracle_adapters
from conformance.inside_vllm.moe_oracle import attempt, backend_answer, walk
from conformance.profile.moe_facts import MoeFacts, load_moe_facts

CUTLASS, MARLIN = cutlass_moe.CutlassExpertsFp4, marlin_moe.MarlinExperts
FLASHINFER = (flashinfer_cutlass_moe.FlashInferExperts, trtllm_nvfp4_moe.TrtLlmNvFp4ExpertsBase)


def only_silu(kind: Any) -> bool:
    """Whether it is the only activation that every kernel before Marlin accepted when Gemma 4 came out (vllm#42027)."""
    return bool(kind == activation.MoEActivation.SILU)


def never() -> bool:
    return False


def lost_op() -> bool:
    raise AttributeError("'_OpNamespace' '_C' object has no attribute 'supports_it'")


def replaces_in_silence(select: Callable[..., Any]) -> Callable[..., Any]:
    """A selection that chooses another backend where it should refuse the requested one."""

    def choose(config: Any, weight_key: Any, activation_key: Any) -> Any:
        try:
            return select(config, weight_key, activation_key)
        except ValueError:
            return select(replace(config, moe_backend="auto"), weight_key, activation_key)

    return choose


def takes_more(config: Any, weight_key: Any, activation_key: Any, hardware: Any) -> Any:
    del config, weight_key, activation_key, hardware
    raise AssertionError("the walk does not call what it does not know")


@contextmanager
def answering(method: str, answer: Callable[..., bool], *kernels: Any) -> Iterator[None]:
    with ExitStack() as changes:
        for kernel in kernels:
            changes.enter_context(mock.patch.object(kernel, method, staticmethod(answer)))
        yield


@contextmanager
def without(module: Any, name: str) -> Iterator[None]:
    with mock.patch.object(module, name):
        delattr(module, name)
        yield


def exhibits() -> Iterator[tuple[str, Any]]:
    select = nvfp4.select_nvfp4_moe_backend
    yield "healthy", ExitStack()
    yield "cutlass refuses gelu_tanh", answering("_supports_activation", only_silu, CUTLASS)
    yield "original report", answering("_supports_activation", only_silu, CUTLASS, *FLASHINFER)
    yield "replaced in silence", mock.patch.object(nvfp4, select.__name__, replaces_in_silence(select))
    yield "marlin refuses", answering("_supports_current_device", never, MARLIN)
    yield "marlin lost an op", answering("_supports_current_device", lost_op, MARLIN)
    yield "first lost an op", answering("_supports_current_device", lost_op, *FLASHINFER)
    yield "no select_nvfp4_moe_backend", without(nvfp4, "select_nvfp4_moe_backend")
    yield "no backend_to_kernel_cls", without(nvfp4, "backend_to_kernel_cls")
    yield "no map_nvfp4_backend", without(nvfp4, "map_nvfp4_backend")
    yield "no FusedMoEConfig", without(moe_config, "FusedMoEConfig")
    yield "no GELU_TANH", mock.patch.object(activation, "MoEActivation", mock.Mock(spec=[], __name__="MoEActivation"))
    yield "other arguments", mock.patch.object(nvfp4, select.__name__, takes_more)


def unquantised(facts: MoeFacts) -> dict[str, dict[str, str]]:
    """The state of each backend in the selection for experts in BF16, by device, in the selection's own order."""
    seen, config = {}, oracle_adapters.moe_config(facts.moe)
    with (
        mock.patch.object(oracle_adapters, "ORACLE", unquantized.__name__),
        mock.patch.object(oracle_adapters, "quantisation", return_value=(None, None)),
    ):
        for backend in unquantized.UnquantizedMoeBackend:  # import the kernels now; later they would keep the stand-in
            attempt(partial(oracle_adapters.kernels, backend))
        for name, sm in facts.devices.items():
            with oracle_adapters.device(sm):
                order = unquantized._get_priority_backends(config)
                seen[name] = {str(each.value): backend_answer(each, config)["state"] for each in order}
    return seen


def main() -> None:
    facts, seen = load_moe_facts(), {}
    for name, defect in exhibits():
        with defect:
            seen[name] = walk(facts)
    seen["unquantised"] = unquantised(facts)
    print(json.dumps(seen))


if __name__ == "__main__":
    main()
