"""Many trials at known rates on the real server, outside of any qualification."""

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
from conformance.views.calibration import Calibration
from conformance.views.coverage import Coverage


def published_coverage(profile: Profile, progress: Progress) -> Coverage:
    """Observe the trials that the profile's sizes ask for; raises ObservationError or Unsupported."""
    with tempfile.TemporaryDirectory() as folder:
        evidence = Evidence(Path(folder) / "evidence", recording=True)
        header = new_header_here(profile.hardware.name, profile.pair.name, profile.level)
        evidence.begin(header, profile_to_json(profile))
        servers = ServerPool(profile, evidence, progress)

        def observed(name: str) -> dict[str, Any]:
            return evidence.observe(name, lambda: OBSERVERS[name](profile, servers, evidence))

        try:
            environment, facts = observed("environment"), observed("calibration")
        finally:
            servers.close()
    return Coverage(profile, environment, facts["method"], Calibration.of(facts, load_plan()))
