"""``python -m conformance.serving.interpreter``: prints what the serving interpreter has, as one line of JSON.

This is a process of its own, because importing vLLM changes the environment of the importing process.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
from pathlib import Path


def describe() -> dict[str, object]:
    """The imported and the installed versions, the machine, and the two registries that MTP depends on."""
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
        "machine_libraries": machine_libraries(Path(vllm.__file__).resolve().parents[1]),
        "gemma4_assistant_known": "gemma4_assistant" in CONFIG_MAPPING,
        "mtp_model_registered": "Gemma4MTPModel" in ModelRegistry.get_supported_archs(),
    }


def installed() -> dict[str, str]:
    """The version of every installed distribution, by normalised name.

    A folder of ``PYTHONPATH`` may hold what the interpreter has as well. The first on the path is what Python imports.
    """
    versions: dict[str, str] = {}
    for found in importlib.metadata.distributions():
        versions.setdefault(normalise(found.metadata["Name"]), found.version)
    return versions


def machine_libraries(packages: Path) -> dict[str, str]:
    """The libraries that a bundle left to the machine, with the versions that the machine had when it was made.

    ``unpack`` of scripts/bundle_wheels writes the file beside vLLM.
    """
    path = packages / "machine-libraries.json"
    noted: dict[str, str] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return noted


def normalise(name: str) -> str:
    """The name of a distribution as locks spell it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    print(json.dumps(describe()))
