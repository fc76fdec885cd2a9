"""How often intervals of trials at known rates held the truth, and on what the trials were made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from conformance.profile.profile import Profile
from conformance.views.calibration import Calibration


@dataclass(frozen=True)
class Coverage:
    """The calibration, and on what it was made."""

    profile: Profile
    environment: Mapping[str, Any]
    method: str
    calibration: Calibration
