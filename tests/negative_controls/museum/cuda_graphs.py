"""vLLM's CUDA graphs for settings that lose a batch, and with a known defect put back into its real dispatcher.

It runs as a program, because it imports vLLM. Standard input has lists of settings by exhibit. It prints one line of
JSON: the answers by exhibit. An exhibit whose name begins with "smallest" picks the smallest graph that fits.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any
from unittest import mock

from vllm.v1.worker.gpu.cudagraph_utils import CudaGraphManager

from conformance.inside_vllm.cuda_graphs import Settings, graphs


def smallest_first(initialise: Callable[[Any], None]) -> Callable[[Any], None]:
    """Candidates by size and not by kind, so that a smaller PIECEWISE graph hides a FULL one (vllm#53407)."""

    def wrapped(self: Any) -> None:
        initialise(self)
        for candidates in self._candidates.values():
            candidates.sort(key=lambda each: each.num_tokens)

    return wrapped


def answers(name: str, settings: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The answers of one exhibit."""
    defect = smallest_first(CudaGraphManager._init_candidates) if name.startswith("smallest") else None
    with mock.patch.object(CudaGraphManager, "_init_candidates", defect) if defect else nullcontext():
        return [graphs(Settings(**each)) for each in settings]


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    print(json.dumps({name: answers(name, settings) for name, settings in asked.items()}))
