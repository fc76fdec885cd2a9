"""The built environment serves its purpose: vLLM is importable and registers Gemma 4's MTP draft."""

from importlib.metadata import packages_distributions, version

from vllm.model_executor.models.registry import ModelRegistry

assert "Gemma4MTPModel" in ModelRegistry.get_supported_archs()
(distribution,) = packages_distributions()["vllm"]
print(f"{distribution} {version(distribution)} registers Gemma4MTPModel")
