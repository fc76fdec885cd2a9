"""Measures on the real server how often intervals cover known rates; this is not part of a qualification."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from conformance.evidence.folder import Evidence
from conformance.observers import OBSERVERS
from conformance.profile.known_rates import load_plan
from conformance.profile.profile import Profile, profile_to_json
from conformance.run.session import new_header_here
from conformance.serving.pool import ServerPool
from conformance.serving.server import Progress
from conformance.views.calibration import Calibration, Coverage


def published_coverage(profile: Profile, progress: Progress) -> Coverage:
    """Observe as many trials as the profile's sizes say.

    Raises:
        ObservationError: a server failed or an observation could not be made.
        Unsupported: this hardware or this vLLM does not support known rates.
    """
    with tempfile.TemporaryDirectory() as folder:
        evidence = Evidence(Path(folder) / "evidence", recording=True)
        header = new_header_here(profile.hardware.name, profile.pair.name, profile.level)
        evidence.begin(header, profile_to_json(profile))
        servers = ServerPool(profile, evidence, progress)

        def observe(name: str) -> dict[str, Any]:
            return evidence.observe(name, lambda: OBSERVERS[name](profile, servers, evidence))

        try:
            environment, facts = observe("environment"), observe("calibration")
        finally:
            servers.close()
    return Coverage(profile, environment, facts["method"], Calibration.of(facts, load_plan()))
