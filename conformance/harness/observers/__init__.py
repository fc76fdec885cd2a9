"""The observers: each makes one document of raw facts, in which there is no floor and no verdict.

An observer is called as ``(profile, servers, evidence)`` through ``evidence.observe(name, …)``, which validates what
it returns against ``schemas/<name>.json``. What cannot be seen raises ObservationError or Unsupported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from conformance.harness.observers import (
    bench,
    calibration,
    chat,
    checkpoint,
    draft_load,
    environment,
    geometry,
    gold,
    load,
    misuse,
    moe,
    moe_oracle,
    moe_refusal,
    numerics,
    parity,
    parsers,
    refusals,
    sampling,
    sweep,
    ties,
    tools,
    wiring,
)

# Of (Profile, Servers, Evidence), and of a look or a group where there are several.
Observer = Callable[..., Mapping[str, Any]]

OBSERVERS: dict[str, Observer] = {
    "environment": environment.observe,
    "checkpoint": checkpoint.observe,
    "geometry": geometry.observe,
    "refusals": refusals.observe,
    "draft_load": draft_load.observe,
    "wiring": wiring.observe,
    "moe": moe.observe,
    "numerics": numerics.observe,
    "parity": parity.observe,
    "gold": gold.observe,
    "moe_oracle": moe_oracle.observe,
    "moe_refusal": moe_refusal.observe,
    "load": load.observe,
    "ties": ties.observe,
    "sampling": sampling.observe,
    "tools": tools.observe,
    "parsers": parsers.observe,
    "chat": chat.observe,
    "misuse": misuse.observe,
    "calibration": calibration.observe,
    "sweep": sweep.observe,
    "bench": bench.observe,
}


def observer(name: str) -> Observer:
    """The observer of an observation.

    "load-2" is the second look of "load", which goes on where the first ended; "chat-two" is the group "two" of "chat".
    """
    kind, _, part = name.partition("-")
    if not part:
        return OBSERVERS[kind]
    return partial(OBSERVERS[kind], look=int(part)) if part.isdigit() else partial(OBSERVERS[kind], group=part)
