"""What the draft is wired to in the running server, and which draft positions the metrics count."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from conformance.harness.evidence import Evidence
from conformance.harness.metrics import read_positions
from conformance.harness.observers.draft_load import ask
from conformance.harness.observers.refusals import require_sound_pair
from conformance.harness.profile import Profile
from conformance.harness.servers import Servers


def observe(profile: Profile, servers: Servers, evidence: Evidence) -> Mapping[str, Any]:
    """The probe's description of the first worker, and the ``position`` labels of /metrics."""
    require_sound_pair(profile, servers, evidence)
    with servers.exclusive():
        server = servers.mtp()
        described = ask(server, "conformance_describe", profile.hardware.bounds.request_seconds)
        return {"k": profile.pair.k, "described": described, "metrics_positions": read_positions(server)}
