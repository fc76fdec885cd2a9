"""The facts that the suite reads from vLLM's selection of a MoE kernel: one function for each, as in ``adapters``.

Written for vLLM 0.28 to 0.32 (``fused_moe/oracle/nvfp4.py``, ``FusedMoEExperts.is_supported_config``). If a version
lacks a name, the function raises Unsupported with the version and the name. No kernel runs: vLLM's own classes answer.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from types import ModuleType
from typing import Any
from unittest import mock

import torch

from conformance.errors import Unsupported
from conformance.inside_vllm.adapters import follow, upstream, vllm_version
from conformance.profile.moe_facts import Experts

FUSED_MOE = "vllm.model_executor.layers.fused_moe"
ORACLE = f"{FUSED_MOE}.oracle.nvfp4"
UNQUANTISED = f"{FUSED_MOE}.oracle.unquantized"
PROBES = "vllm.utils."  # modules with has_flashinfer_…, has_humming
PLATFORMS = "vllm.platforms"


def moe_config(experts: Experts, moe_backend: str = "auto", **more: Any) -> Any:
    """vLLM's FusedMoEConfig of these experts on one device; ``moe_backend`` as in ``--moe-backend``."""
    parallel = upstream(f"{FUSED_MOE}.config", "FusedMoEParallelConfig")
    kind = upstream(f"{FUSED_MOE}.config", "FusedMoEConfig")
    known = inspect.signature(kind).parameters
    # Up to 0.23 the configuration holds the width of one device's share; on one device that is the whole width.
    width = "intermediate_size" if "intermediate_size" in known else "intermediate_size_per_partition"
    return _call(
        kind,
        num_experts=experts.experts,
        experts_per_token=experts.top_k,
        hidden_dim=experts.hidden,
        **{width: experts.intermediate},
        num_local_experts=experts.experts,
        num_logical_experts=experts.experts,
        activation=follow(upstream(f"{FUSED_MOE}.activation", "MoEActivation"), experts.activation),
        device="cpu",
        routing_method=follow(upstream(f"{FUSED_MOE}.config", "RoutingMethodType"), experts.routing),
        moe_parallel_config=follow(parallel, "make_no_parallel")(),
        in_dtype=follow(torch, experts.dtype),
        moe_backend=moe_backend,
        **more,
    )


def quantisation() -> tuple[Any, Any]:
    """The keys of NVFP4's weights and activations that modelopt.py passes to the selection."""
    module = "vllm.model_executor.layers.quantization.utils.quant_utils"
    return upstream(module, "kNvfp4Static"), upstream(module, "kNvfp4Dynamic")


def select(config: Any) -> str:
    """The backend that vLLM's selection chooses.

    Raises:
        ValueError: vLLM's own error for a configuration that a requested backend does not support.
        NotImplementedError: vLLM's own error if no backend supports the configuration.
        Unsupported: this vLLM lacks a name or takes other arguments.
    """
    chosen, _ = _call(upstream(ORACLE, "select_nvfp4_moe_backend"), config, *quantisation())
    return str(follow(chosen, "value"))


def order(config: Any) -> list[Any]:
    """The backends in the order in which the selection tries them on the current platform.

    Raises:
        Unsupported: this vLLM selects in another way.
    """
    selection, tried = upstream(ORACLE, "select_nvfp4_moe_backend"), list[Any]()
    upstream(ORACLE, "backend_to_kernel_cls")

    def no_kernels(backend: Any) -> list[Any]:
        tried.append(backend)
        return []

    # The selection must find nothing, since no backend has a kernel now.
    with mock.patch(f"{ORACLE}.backend_to_kernel_cls", no_kernels), suppress(NotImplementedError):
        _call(selection, config, *quantisation())
    if not tried:
        raise Unsupported(f"vLLM {vllm_version()} does not use backend_to_kernel_cls in select_nvfp4_moe_backend.")
    return tried


def kernels(backend: Any) -> list[Any]:
    """The kernel classes of a backend, in the order in which the selection tries them."""
    return list(upstream(ORACLE, "backend_to_kernel_cls")(backend))


def unquantised(config: Any) -> dict[str, tuple[bool, str]]:
    """Of each kernel that vLLM may take for experts without quantisation: whether it can serve, and why not.

    With LoRA, vLLM takes one kernel and does not ask it.

    Raises:
        Unsupported: this vLLM selects in another way.
    """
    if getattr(config, "is_lora_enabled", False):
        found = [_call(upstream(UNQUANTISED, "select_unquantized_moe_backend"), config)[1]]
    else:
        backends = _call(upstream(UNQUANTISED, "_get_priority_backends"), config)
        found = [kernel for each in backends for kernel in upstream(UNQUANTISED, "backend_to_kernel_cls")(each)]
    answers = {}
    for kernel in found:
        asked = follow(kernel, "is_supported_config")
        supported, reason = _call(asked, kernel, config, None, None, _standard_format())
        answers[str(kernel.__name__)] = bool(supported), str(reason or "")
    return answers


def requested(moe_backend: str) -> str:
    """The backend that a word of ``--moe-backend`` means.

    Raises:
        Unsupported: this vLLM does not know the word.
    """
    meaning = upstream(ORACLE, "map_nvfp4_backend")
    try:
        return str(follow(meaning(moe_backend), "value"))
    except ValueError as error:
        raise Unsupported(f"vLLM {vllm_version()} has no --moe-backend {moe_backend} for NVFP4.") from error


def support(kernel: Any, config: Any) -> tuple[bool, str]:
    """The kernel's own answer to the whole configuration, with vLLM's reason if the answer is no."""
    asked = follow(kernel, "is_supported_config")
    supported, reason = _call(asked, kernel, config, *quantisation(), _standard_format())
    return bool(supported), str(reason or "")


def questions(kernel: Any, config: Any) -> dict[str, Callable[[], bool]]:
    """The single questions that ``is_supported_config`` asks a kernel."""
    keys, routing = quantisation(), follow(config, "routing_method")

    def ask(method: str, *arguments: Any) -> Callable[[], bool]:
        asked = follow(kernel, method)
        return lambda: bool(_call(asked, *arguments))

    form = follow(kernel, "activation_format")
    return {
        "device": ask("_supports_current_device"),
        "activation": ask("_supports_activation", follow(config, "activation")),
        "quantisation": ask("_supports_quant_scheme", *keys),
        "parallelism": ask("_supports_parallel_config", follow(config, "moe_parallel_config")),
        "routing": ask("_supports_routing_method", routing, *keys),
        "router's dtype": ask("_supports_router_logits_dtype", follow(config, "router_logits_dtype"), routing),
        "shape": ask("_supports_shape", follow(config, "hidden_dim")),
        "activation format": lambda: bool(form() == _standard_format()),
    }


@contextmanager
def device(sm: int | None) -> Iterator[None]:
    """Replace vLLM's ``current_platform`` by CUDA with this compute capability (times ten), or by the CPU for None.

    The stand-in is vLLM's own Platform, so vLLM's own code answers questions about capabilities and families. Every
    module that imported ``current_platform`` gets it; decisions that a module made at its import do not change.
    """
    interface = f"{PLATFORMS}.interface"
    kinds, kind = upstream(interface, "PlatformEnum"), "CPU" if sm is None else "CUDA"
    capability = None if sm is None else upstream(interface, "DeviceCapability")(sm // 10, sm % 10)
    facts = {
        "_enum": follow(kinds, kind),
        "device_name": kind.lower(),
        "device_type": kind.lower(),
        "get_device_capability": classmethod(lambda _cls, device_id=0: capability),  # noqa: ARG005
    }
    stand_in = type("StandIn", (upstream(interface, "Platform"),), facts)()
    real = upstream(PLATFORMS, "current_platform")
    upstream(PLATFORMS, "_current_platform")
    with ExitStack() as changes:
        changes.enter_context(mock.patch(f"{PLATFORMS}._current_platform", stand_in))
        for module in list(sys.modules.values()):
            if isinstance(module, ModuleType) and vars(module).get("current_platform") is real:
                changes.enter_context(mock.patch.dict(vars(module), current_platform=stand_in))
        yield


@contextmanager
def libraries_assumed(kernel: Any) -> Iterator[set[str]]:
    """Answer yes to the questions of the kernel's module about installed libraries (``has_flashinfer_…``).

    Yields the set of libraries whose true answer is no: "flashinfer", "humming". Questions add to it.
    """
    missing: set[str] = set()
    with ExitStack() as changes:
        for owner in {follow(each, "__module__") for each in follow(kernel, "__mro__")}:
            module = vars(sys.modules[owner])
            probes = {name: value for name, value in module.items() if _is_probe(name, value)}
            yes = {name: _assumed(name, probe, missing) for name, probe in probes.items()}
            changes.enter_context(mock.patch.dict(module, yes))
        yield missing


def _is_probe(name: str, value: Any) -> bool:
    return name.startswith("has_") and callable(value) and str(getattr(value, "__module__", "")).startswith(PROBES)


def _assumed(name: str, probe: Callable[..., Any], missing: set[str]) -> Callable[..., bool]:
    def answer(*arguments: Any) -> bool:
        if not probe(*arguments):
            missing.add(name.removeprefix("has_").partition("_")[0])
        return True

    return answer


def _standard_format() -> Any:
    return follow(upstream(f"{FUSED_MOE}.modular_kernel", "FusedMoEActivationFormat"), "Standard")


def _call(function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """The function's value.

    Raises:
        Unsupported: this version takes other arguments.
    """
    try:
        inspect.signature(function).bind(*arguments, **named)
    except TypeError as error:
        raise Unsupported(f"vLLM {vllm_version()} takes other arguments in {function.__qualname__}: {error}.") from None
    return function(*arguments, **named)
