"""Reads from a server's log how many steps ran from which kind of CUDA graph (vLLM's ``--cudagraph-metrics``)."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

# CUDAGraphLogging.generate_metric_table in vllm/compilation/cuda_graph.py: tokens, tokens with padding, padding, mode,
# count. vLLM's logger puts its prefix before every line.
_ROW = re.compile(r"\| (\d+) +\| (\d+) +\| (\d+) +\| ([A-Z_]+) +\| (\d+) +\|$", re.MULTILINE)
HEADER = "**CUDAGraph Stats:**"


@dataclass(frozen=True, order=True)
class Kind:
    """Steps of one size and one kind of graph: tokens of the step, and with the graph's padding."""

    tokens: int
    padded: int
    mode: str  # FULL, PIECEWISE or NONE


def graph_counts(text: str) -> Counter[Kind]:
    """The number of steps by kind, over all tables of a log."""
    found: Counter[Kind] = Counter()
    for tokens, padded, _, mode, count in _ROW.findall(text):
        found[Kind(int(tokens), int(padded), mode)] += int(count)
    return found
