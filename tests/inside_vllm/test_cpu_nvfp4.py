"""The last resort for NVFP4 on the CPU: exact, and only where vLLM itself has nothing and nothing was asked for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from conformance.checkpoints import nvfp4
from conformance.inside_vllm import adapters


@pytest.fixture
def cpu_nvfp4(pristine: Any) -> Any:
    """The last resort, installed."""
    from conformance.inside_vllm import cpu_nvfp4 as module

    module.install()
    assert pristine.kernels[pristine.cpu] == [module.DecodedNvFp4LinearKernel]
    return module


def moe_config(backend: str) -> Any:
    """vLLM's own description of the micro target's MoE."""
    from vllm.model_executor.layers.fused_moe.activation import MoEActivation
    from vllm.model_executor.layers.fused_moe.config import FusedMoEConfig, FusedMoEParallelConfig, RoutingMethodType

    return FusedMoEConfig(
        num_experts=8,
        experts_per_token=2,
        hidden_dim=128,
        intermediate_size=32,
        num_local_experts=8,
        num_logical_experts=8,
        activation=MoEActivation.GELU_TANH,
        device="cpu",
        routing_method=RoutingMethodType.Custom,
        moe_parallel_config=FusedMoEParallelConfig.make_no_parallel(),
        in_dtype=torch.bfloat16,
        moe_backend=backend,
    )


def moe_method(pristine: Any, backend: str) -> Any:
    from vllm.config import VllmConfig, set_current_vllm_config

    config = pristine.modelopt.ModelOptNvFp4Config(is_checkpoint_nvfp4_serialized=True)
    with set_current_vllm_config(VllmConfig()):
        return config.FusedMoEMethodCls(quant_config=config, moe_config=moe_config(backend))


def test_vllm_alone_has_no_nvfp4_moe_for_the_cpu(pristine: Any) -> None:
    with pytest.raises(NotImplementedError, match="No NvFp4 MoE backend supports the deployment configuration"):
        moe_method(pristine, "auto")


def test_the_last_resort_is_vllms_unquantised_kernel(pristine: Any, cpu_nvfp4: Any) -> None:
    method = moe_method(pristine, "auto")
    assert isinstance(method, cpu_nvfp4.ModelOptNvFp4DecodedMoE)
    assert "CPUUnquantizedExperts" in method.experts_cls.__name__
    assert adapters.moe_backend(SimpleNamespace(quant_method=method)) == "CPU"


@pytest.mark.usefixtures("cpu_nvfp4")
@pytest.mark.parametrize(
    ("backend", "name"), [("cutlass", "VLLM_CUTLASS"), ("marlin", "MARLIN"), ("emulation", "EMULATION")]
)
def test_an_explicit_backend_fails_in_vllms_words(pristine: Any, backend: str, name: str) -> None:
    with pytest.raises(ValueError, match=f"NvFp4 MoE backend '{name}' does not support the deployment configuration"):
        moe_method(pristine, backend)


@pytest.mark.usefixtures("cpu_nvfp4")
def test_vllms_own_choice_comes_first(pristine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm.model_executor.layers.fused_moe.experts.marlin_moe import MarlinExperts
    from vllm.model_executor.layers.fused_moe.oracle.nvfp4 import NvFp4MoeBackend

    chosen = NvFp4MoeBackend.MARLIN, MarlinExperts
    monkeypatch.setattr(pristine.modelopt, "select_nvfp4_moe_backend", lambda **_: chosen)
    assert type(moe_method(pristine, "auto")) is pristine.modelopt.ModelOptNvFp4FusedMoE


def test_it_refuses_any_other_platform(cpu_nvfp4: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_nvfp4, "current_platform", SimpleNamespace(is_cpu=lambda: False))
    with pytest.raises(RuntimeError, match="CPU platform only"):
        cpu_nvfp4.install()
    assert not cpu_nvfp4.DecodedNvFp4LinearKernel.is_supported()[0]


@pytest.mark.parametrize("stem", ["w13", "w2"])
def test_experts_are_decoded_exactly(cpu_nvfp4: Any, stem: str) -> None:
    """Two matrices with one global scale each (gate and up) or one, stacked as vLLM's loader does."""
    matrices = [torch.randn(3, 16, 32) * factor for factor in ((1.0, 5.0) if stem == "w13" else (1.0,))]
    quantised = [[nvfp4.quantise(expert) for expert in matrix] for matrix in matrices]
    layer = SimpleNamespace(params_dtype=torch.bfloat16)
    for field in ("weight", "weight_scale"):
        parts = [torch.stack([getattr(q, field).view(torch.uint8) for q in part]) for part in quantised]
        stacked = torch.cat(parts, dim=1)
        dtype = torch.uint8 if field == "weight" else torch.float8_e4m3fn
        setattr(layer, f"{stem}_{field}", nn.Parameter(stacked.view(dtype), requires_grad=False))
    scales = torch.stack([torch.stack([q.weight_scale_2 for q in part]) for part in quantised], dim=-1)
    setattr(layer, f"{stem}_weight_scale_2", nn.Parameter(scales.squeeze(-1) if stem == "w2" else scales))

    expected = torch.cat([torch.stack([nvfp4.dequantise(q) for q in part]) for part in quantised], dim=1)
    assert torch.equal(cpu_nvfp4._decoded(layer, stem), expected)
    getattr(layer, f"{stem}_weight_scale_2").data[1] *= 2
    assert not torch.equal(cpu_nvfp4._decoded(layer, stem), expected)


def test_a_linear_layer_is_decoded_exactly(pristine: Any, cpu_nvfp4: Any) -> None:
    kernel = pristine.linear.init_nvfp4_linear_kernel()
    assert isinstance(kernel, cpu_nvfp4.DecodedNvFp4LinearKernel)

    quantised = nvfp4.quantise(torch.randn(8, 32))
    layer = nn.Module()
    for name, value in zip(("weight", "weight_scale", "weight_global_scale"), quantised, strict=True):
        setattr(layer, name, nn.Parameter(value, requires_grad=False))
    kernel.process_weights_after_loading(layer)
    x = torch.randn(3, 32)
    assert torch.equal(kernel.apply_weights(layer, x), x @ nvfp4.dequantise(quantised, torch.float32).T)


def test_vllm_alone_has_no_nvfp4_linear_for_the_cpu(pristine: Any) -> None:
    with pytest.raises(ValueError, match="Failed to find a kernel that can implement the NVFP4 linear layer"):
        pristine.linear.init_nvfp4_linear_kernel()
