"""A platform that has neither FP8 nor modelopt's NVFP4, according to vLLM's own list."""

from __future__ import annotations

from vllm.platforms import current_platform

from conformance.inside_vllm import geometry

type(current_platform).supported_quantization = ["compressed-tensors"]
geometry.main()
