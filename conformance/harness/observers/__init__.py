"""The observers: each makes one document of raw facts, in which there is no floor and no verdict.

An observer is called as ``(profile, servers, evidence)`` through ``evidence.observe(name, …)``, which validates what
it returns against ``schemas/<name>.json``. What cannot be seen raises ObservationError or Unsupported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from conformance.harness.evidence import Evidence
from conformance.harness.observers import (
    acceptance,
    bench,
    checkpoint,
    draft_load,
    environment,
    geometry,
    gold,
    moe,
    moe_oracle,
    moe_refusal,
    numerics,
    parity,
    refusals,
    sweep,
    texts,
    timings,
    tools,
    wiring,
)
from conformance.harness.profile import Profile
from conformance.harness.servers import Servers

Observer = Callable[[Profile, Servers, Evidence], Mapping[str, Any]]

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
    "acceptance": acceptance.observe,
    "texts": texts.observe,
    "timings": timings.observe,
    "tools": tools.observe,
    "sweep": sweep.observe,
    "bench": bench.observe,
}
