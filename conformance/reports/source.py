"""The sources of a report: recorded observations, each read once, and today's floors."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from conformance.errors import ObservationError, Unsupported
from conformance.evidence.folder import Evidence
from conformance.profile.arm_facts import load_arm_facts
from conformance.profile.floors import Floors
from conformance.profile.profile import Profile
from conformance.profile.profile_floors import floors_of, workload_floors_of
from conformance.profile.tolerances import Tolerances, load_tolerances
from conformance.profile.workload_floors import WorkloadFloors
from conformance.views.load import Load
from conformance.views.resolved_config import ResolvedConfig
from conformance.views.soak import Soak


@dataclass(frozen=True)
class Source:
    """Recorded evidence, and the profile that names the floors for its values."""

    evidence: Evidence
    profile: Profile

    @functools.cached_property
    def floors(self) -> Floors:
        """Today's floors of hardware and pair."""
        return floors_of(self.profile)

    @functools.cached_property
    def workload_floors(self) -> WorkloadFloors:
        """Today's floors of the pair on kinds of prompts."""
        return workload_floors_of(self.profile)

    def holds(self, name: str) -> bool:
        """Whether the observation was made."""
        return self.evidence.holds(name)

    @functools.cached_property
    def observation(self) -> Callable[[str], dict[str, Any]]:
        """A function that returns an observation by name and validates it once."""
        return functools.cache(lambda name: self.evidence.observe(name, dict))

    @functools.cached_property
    def config(self) -> ResolvedConfig | None:
        """The configurations of the measured servers; None if they are not known."""
        try:
            return ResolvedConfig.of(self.observation("resolved_config"), load_arm_facts())
        except (ObservationError, Unsupported):
            return None

    @property
    def looks(self) -> list[dict[str, Any]]:
        """The looks of the load that were made."""
        later = itertools.takewhile(self.holds, (f"load-{number}" for number in itertools.count(2)))
        return [self.observation(name) for name in ("load", *later)]

    @functools.cached_property
    def load(self) -> Load:
        """All looks of the load together."""
        return Load.of(self.looks)

    @functools.cached_property
    def tolerances(self) -> Tolerances:
        """Today's tolerances."""
        return load_tolerances()

    @functools.cached_property
    def soak(self) -> Soak:
        """The soak."""
        return Soak.of(self.observation("soak"), self.tolerances["soak_warm_up"])
