"""Why this pair must not be served, if so; asked before any server is started for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from conformance.checkpoints.headers import draft_folder, target_folder
from conformance.checkpoints.pairing import refusals
from conformance.errors import ObservationError
from conformance.evidence.folder import Evidence
from conformance.profile.profile import Profile
from conformance.serving.pool import ServerPool


def observe(profile: Profile, _servers: ServerPool, _evidence: Evidence) -> Mapping[str, Any]:
    """Sentences; none for a sound pair."""
    return {"refusals": refusals(target_folder(profile.pair), draft_folder(profile.pair))}


def require_sound_pair(profile: Profile, servers: ServerPool, evidence: Evidence) -> None:
    """ObservationError with the first refusal, so that a broken pair costs no server's start; none where one runs."""
    if servers.attached:
        return
    found = evidence.observe("refusals", lambda: observe(profile, servers, evidence))["refusals"]
    if found:
        raise ObservationError(f"refused before start: {found[0]}")
