"""NVFP4 on the CPU as a last resort: weights are decoded to BF16 at load, and vLLM's own unquantised kernels serve.

Marlin does the same on GPUs without FP4 arithmetic. vLLM's own choice comes first. This module is used only if vLLM
finds no backend and none was requested, so an explicit ``--moe-backend`` that cannot serve fails with vLLM's own error.
(``--linear-backend`` is only a preference: vLLM itself warns and takes another kernel.)
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from vllm.logger import init_logger
from vllm.model_executor.kernels.linear import register_linear_kernel
from vllm.model_executor.kernels.linear.nvfp4 import NvFp4LinearKernel
from vllm.model_executor.layers.fused_moe.unquantized_fused_moe_method import UnquantizedFusedMoEMethod
from vllm.model_executor.layers.quantization.modelopt import ModelOptNvFp4Config, ModelOptNvFp4FusedMoE
from vllm.model_executor.layers.quantization.utils.nvfp4_emulation_utils import dequantize_to_dtype
from vllm.model_executor.utils import replace_parameter
from vllm.platforms import PlatformEnum, current_platform

logger = init_logger("vllm.conformance.cpu_nvfp4")


def install() -> None:
    """Register both last resorts in vLLM. A second call changes nothing.

    Raises:
        RuntimeError: the platform is not the CPU.
    """
    if not current_platform.is_cpu():
        raise RuntimeError("conformance: the NVFP4 last resort is for the CPU platform only")
    config: Any = ModelOptNvFp4Config
    if config.FusedMoEMethodCls is ModelOptNvFp4FusedMoE:
        config.FusedMoEMethodCls = staticmethod(choose_moe_method)
        register_linear_kernel(DecodedNvFp4LinearKernel, PlatformEnum.CPU, "nvfp4")


def choose_moe_method(quant_config: Any, moe_config: Any) -> Any:
    """vLLM's own method if its oracle finds a backend, else the decoding one.

    Raises:
        NotImplementedError: a backend was requested that cannot serve.
    """
    try:
        return ModelOptNvFp4FusedMoE(quant_config=quant_config, moe_config=moe_config)
    except NotImplementedError as refusal:
        if moe_config.moe_backend != "auto":
            raise
        logger.info_once(
            "conformance: NVFP4 MoE decoded to BF16 for the CPU (last resort), since vLLM says: %s", str(refusal)
        )
        return ModelOptNvFp4DecodedMoE(quant_config, moe_config)


class ModelOptNvFp4DecodedMoE(UnquantizedFusedMoEMethod):
    """NVFP4 in the checkpoint, BF16 in memory. vLLM's weight loader needs "ModelOpt" in the name of the class."""

    use_global_sf = False

    def __init__(self, quant_config: Any, moe_config: Any) -> None:
        super().__init__(moe_config)
        self.quant_config = quant_config

    create_weights = ModelOptNvFp4FusedMoE.create_weights
    uses_weight_scale_2_pattern = ModelOptNvFp4FusedMoE.uses_weight_scale_2_pattern

    def process_weights_after_loading(self, layer: Any) -> None:
        for stem in ("w13", "w2"):
            replace_parameter(layer, f"{stem}_weight", _decoded(layer, stem))
            for scale in ("weight_scale", "weight_scale_2", "input_scale"):
                replace_parameter(layer, f"{stem}_{scale}", None)
        super().process_weights_after_loading(layer)


def _decoded(layer: Any, stem: str) -> Tensor:
    """Weights [E, rows, columns] in the layer's dtype; w13 has a global scale for gate and one for up, w2 has one."""
    packed, scale = getattr(layer, f"{stem}_weight").data, getattr(layer, f"{stem}_weight_scale").data
    scale_2 = getattr(layer, f"{stem}_weight_scale_2").data.flatten()
    per_scale = (scale_2.numel(), -1)
    values: Tensor = dequantize_to_dtype(
        packed.view(*per_scale, packed.shape[-1]),
        scale.view(*per_scale, scale.shape[-1]),
        scale_2,
        layer.params_dtype,
        swizzle=False,
    )
    return values.view(*packed.shape[:2], -1)


class DecodedNvFp4LinearKernel(NvFp4LinearKernel):
    """Serves an NVFP4 linear layer as a plain BF16 layer."""

    @classmethod
    def is_supported(cls, *_: Any) -> tuple[bool, str | None]:
        return (True, None) if current_platform.is_cpu() else (False, "for the CPU platform only")

    @classmethod
    def can_implement(cls, *_: Any) -> tuple[bool, str | None]:
        return True, None

    def process_weights_after_loading(self, layer: Any) -> None:
        weight, scale, scale_2 = layer.weight.data, layer.weight_scale.data, layer.weight_global_scale.data
        dtype = torch.get_default_dtype()
        replace_parameter(layer, "weight", dequantize_to_dtype(weight, scale, scale_2, dtype, swizzle=False))
        replace_parameter(layer, "weight_scale", None)

    def apply_weights(self, layer: Any, x: Tensor, bias: Tensor | None = None) -> Tensor:
        return F.linear(x, layer.weight, bias)
