"""Why this pair must not be served, if so; asked before any server is started for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from conformance.harness.checkpoint import draft_folder, target_folder
from conformance.harness.errors import ObservationError
from conformance.harness.evidence import Evidence
from conformance.harness.pair import refusals
from conformance.harness.profile import Profile
from conformance.harness.servers import Servers


def observe(profile: Profile, _servers: Servers, _evidence: Evidence) -> Mapping[str, Any]:
    """Sentences; none for a sound pair."""
    return {"refusals": refusals(target_folder(profile.pair), draft_folder(profile.pair))}


def require_sound_pair(profile: Profile, servers: Servers, evidence: Evidence) -> None:
    """ObservationError with the first refusal, so that a broken pair costs no server's start; none where one runs."""
    if servers.attached:
        return
    found = evidence.observe("refusals", lambda: observe(profile, servers, evidence))["refusals"]
    if found:
        raise ObservationError(f"refused before start: {found[0]}")
