"""``python -m conformance.serving.interpreter``: what the interpreter that serves has on board, as one line of JSON.

A process of its own, because importing vLLM changes the environment of whoever does it.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re


def describe() -> dict[str, object]:
    """Versions as imported and as installed, the machine, and the two registries that MTP hangs on."""
    import torch
    import transformers
    import vllm
    from transformers import CONFIG_MAPPING
    from vllm.model_executor.models.registry import ModelRegistry

    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpu_count": os.cpu_count(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "imported": {module.__name__: str(module.__version__) for module in (vllm, torch, transformers)},
        "installed": installed(),
        "gemma4_assistant_known": "gemma4_assistant" in CONFIG_MAPPING,
        "mtp_model_registered": "Gemma4MTPModel" in ModelRegistry.get_supported_archs(),
    }


def installed() -> dict[str, str]:
    """Version of every installed distribution by its normalised name."""
    return {normalised(found.metadata["Name"]): found.version for found in importlib.metadata.distributions()}


def normalised(name: str) -> str:
    """The one spelling of a distribution's name that locks use (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    print(json.dumps(describe()))
