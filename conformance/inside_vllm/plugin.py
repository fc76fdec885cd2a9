"""The entry point ``vllm.general_plugins``: vLLM calls ``register`` in each of its processes.

Importing this module does nothing. ``register`` does nothing on a GPU without ``CONFORMANCE_SNAPSHOT_DIR``.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

from conformance.errors import Unsupported
from conformance.inside_vllm import adapters

SNAPSHOT_DIRECTORY = "CONFORMANCE_SNAPSHOT_DIR"

logger = logging.getLogger("vllm.conformance")


def register() -> None:
    """Install the snapshot if the environment names a folder, and NVFP4 on the CPU. A second call changes nothing."""
    if directory := os.environ.get(SNAPSHOT_DIRECTORY):
        from conformance.inside_vllm import snapshot

        try:
            snapshot.install(Path(directory))
        except Unsupported as reason:
            logger.warning("conformance: no load snapshot: %s", reason)
    if adapters.on_cpu():
        try:
            from conformance.inside_vllm import cpu_nvfp4
        except (ImportError, AttributeError) as reason:
            logger.warning("conformance: no NVFP4 on the CPU with vLLM %s: %s", adapters.vllm_version(), reason)
        else:
            cpu_nvfp4.install()
