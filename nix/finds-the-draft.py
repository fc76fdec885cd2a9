"""The built environment serves its purpose: vLLM is importable and registers Gemma 4's MTP draft."""

import vllm
from vllm.model_executor.models.registry import ModelRegistry

assert "Gemma4MTPModel" in ModelRegistry.get_supported_archs()
print(f"vLLM {vllm.__version__} registers Gemma4MTPModel")
