"""Many trials at known rates on the real server, outside of any qualification."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conformance.harness.calibration import load_plan
from conformance.harness.evidence import Evidence, new_header
from conformance.harness.observers import OBSERVERS
from conformance.harness.profile import Profile, as_document
from conformance.harness.server import Progress
from conformance.harness.servers import Servers
from conformance.harness.views.calibration import Calibration


@dataclass(frozen=True)
class Coverage:
    """The calibration, and on what it was made."""

    profile: Profile
    environment: Mapping[str, Any]
    method: str
    calibration: Calibration


def published_coverage(profile: Profile, progress: Progress) -> Coverage:
    """Observe the trials that the profile's sizes ask for; raises ObservationError or Unsupported."""
    with tempfile.TemporaryDirectory() as folder:
        evidence = Evidence(Path(folder) / "evidence", recording=True)
        evidence.begin(new_header(profile.hardware.name, profile.pair.name, profile.level), as_document(profile))
        servers = Servers(profile, evidence, progress)

        def observed(name: str) -> dict[str, Any]:
            return evidence.observe(name, lambda: OBSERVERS[name](profile, servers, evidence))

        try:
            environment, facts = observed("environment"), observed("calibration")
        finally:
            servers.close()
    return Coverage(profile, environment, facts["method"], Calibration.of(facts, load_plan()))
