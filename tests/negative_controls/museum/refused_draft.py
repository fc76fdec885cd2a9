"""vLLM accepts every configuration and cannot build the draft under a quantised target."""

from __future__ import annotations

from typing import Any

from vllm.model_executor.models import gemma4_mtp

from conformance.inside_vllm import geometry

healthy = gemma4_mtp.get_draft_quant_config


def only_unquantised(vllm_config: Any) -> Any:
    if vllm_config.quant_config is not None:
        raise KeyError("layers.0.mlp.down_proj.weight_scale")
    return healthy(vllm_config)


gemma4_mtp.get_draft_quant_config = only_unquantised
geometry.main()
