"""The reasons why this pair must not be served; they are found before any server starts."""

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
    """One sentence for each reason; none for a sound pair."""
    return {"refusals": refusals(target_folder(profile.pair), draft_folder(profile.pair))}


def require_sound_pair(profile: Profile, servers: ServerPool, evidence: Evidence) -> None:
    """Require a sound pair, so that no server is started for a broken one; attached servers run already.

    Raises:
        ObservationError: the pair is not sound; the sentence holds the first reason.
    """
    if servers.attached:
        return
    found = evidence.observe("refusals", lambda: observe(profile, servers, evidence))["refusals"]
    if found:
        raise ObservationError(f"refused before start: {found[0]}")
