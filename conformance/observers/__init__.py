"""The observers: each makes one document of raw facts, without floors and verdicts.

``evidence.observe(name, …)`` calls an observer as ``(profile, servers, evidence)`` and validates the result against
``<name>.schema.json``. An observer raises ObservationError or Unsupported if an observation is impossible.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

# Its arguments are (Profile, ServerPool, Evidence), and a look or a group if there are several.
Observer = Callable[..., Mapping[str, Any]]

NAMES = (
    "environment",
    "checkpoint",
    "geometry",
    "refusals",
    "draft_load",
    "wiring",
    "resolved_config",
    "moe",
    "kernels",
    "numerics",
    "parity",
    "gold",
    "moe_oracle",
    "moe_refusal",
    "cuda_graphs",
    "graph_steps",
    "load",
    "near_ties",
    "sampling",
    "task_score",
    "tools",
    "parsers",
    "chat",
    "bad_requests",
    "calibration",
    "sweep",
    "k_by_batch",
    "bench",
    "prefix_caching",
    "sampling_options",
    "token_scores",
    "cut_answers",
    "context_limit",
    "preemption",
    "seeds",
    "thinking_budget",
    "combination_support",
    "combination",
    "served_load",
    "soak",
    "energy",
)


def _observe(name: str, *arguments: Any, **part: Any) -> Mapping[str, Any]:
    """Import the module only when it is needed: judging needs no observer, and several import torch."""
    found: Mapping[str, Any] = importlib.import_module(f"{__name__}.{name}").observe(*arguments, **part)
    return found


OBSERVERS: dict[str, Observer] = {name: partial(_observe, name) for name in NAMES}


def observer(name: str) -> Observer:
    """The observer of an observation.

    "load-2" is the second look of "load", which continues after the first; "chat-two" is the group "two" of "chat".
    """
    kind, _, part = name.partition("-")
    if not part:
        return OBSERVERS[kind]
    return partial(OBSERVERS[kind], look=int(part)) if part.isdigit() else partial(OBSERVERS[kind], group=part)
