"""A plugin for the process of the API: token ids that were accepted behind a stop string stay in the answer.

This is the state before vllm#47616 was mended; it shows in streamed answers. The defect is there while a file exists,
which the environment names.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

SWITCH = "CONFORMANCE_SURPLUS_SWITCH"


def install(broken: Path) -> None:
    """Do not drop the surplus tokens while this file exists."""
    from vllm.v1.engine.output_processor import OutputProcessor

    right = OutputProcessor._trim_surplus_tokens

    def trim(*given: Any) -> None:
        if not broken.exists():
            right(*given)

    OutputProcessor._trim_surplus_tokens = staticmethod(trim)


if SWITCH in os.environ:
    install(Path(os.environ[SWITCH]))
