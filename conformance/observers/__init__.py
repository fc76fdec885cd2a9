"""The observers: each makes one document of raw facts, in which there is no floor and no verdict.

An observer is called as ``(profile, servers, evidence)`` through ``evidence.observe(name, …)``, which validates what
it returns against ``<name>.schema.json``. What cannot be seen raises ObservationError or Unsupported.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

# Of (Profile, Servers, Evidence), and of a look or a group where there are several.
Observer = Callable[..., Mapping[str, Any]]

NAMES = (
    "environment",
    "checkpoint",
    "geometry",
    "refusals",
    "draft_load",
    "wiring",
    "moe",
    "kernels",
    "numerics",
    "parity",
    "gold",
    "moe_oracle",
    "moe_refusal",
    "load",
    "near_ties",
    "sampling",
    "tools",
    "parsers",
    "chat",
    "bad_requests",
    "calibration",
    "sweep",
    "bench",
    "soak",
)


def _observe(name: str, *arguments: Any, **part: Any) -> Mapping[str, Any]:
    """Import the module when it is needed: judging needs none, and several import torch."""
    found: Mapping[str, Any] = importlib.import_module(f"{__name__}.{name}").observe(*arguments, **part)
    return found


OBSERVERS: dict[str, Observer] = {name: partial(_observe, name) for name in NAMES}


def observer(name: str) -> Observer:
    """The observer of an observation.

    "load-2" is the second look of "load", which goes on where the first ended; "chat-two" is the group "two" of "chat".
    """
    kind, _, part = name.partition("-")
    if not part:
        return OBSERVERS[kind]
    return partial(OBSERVERS[kind], look=int(part)) if part.isdigit() else partial(OBSERVERS[kind], group=part)
