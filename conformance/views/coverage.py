"""The coverage of intervals in trials at known rates, and where the trials were made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from conformance.profile.profile import Profile
from conformance.views.calibration import Calibration


@dataclass(frozen=True)
class Coverage:
    """The calibration, and the profile, environment and method that it was made with."""

    profile: Profile
    environment: Mapping[str, Any]
    method: str
    calibration: Calibration
