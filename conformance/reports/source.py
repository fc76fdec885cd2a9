"""Where a report comes from: recorded observations, each read once, and today's floors."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from conformance import FIXTURES
from conformance.evidence.folder import Evidence
from conformance.profile.floors import Floors, load_floors
from conformance.profile.profile import Profile
from conformance.profile.tolerances import Tolerances, load_tolerances
from conformance.views.load import Load
from conformance.views.soak import Soak


@dataclass(frozen=True)
class Source:
    """Recorded evidence, and the profile that says which floors its values are held against."""

    evidence: Evidence
    profile: Profile

    @functools.cached_property
    def floors(self) -> Floors:
        """The floors of hardware and pair as they are today."""
        pair = self.profile.pair
        return load_floors(FIXTURES / "floors", self.profile.hardware.name, pair.name, pair.k)

    def holds(self, name: str) -> bool:
        """Whether the observation was made."""
        return self.evidence.holds(name)

    @functools.cached_property
    def observation(self) -> Callable[[str], dict[str, Any]]:
        """An observation by its name, validated once, however much is drawn from it."""
        return functools.cache(lambda name: self.evidence.observe(name, dict))

    @property
    def looks(self) -> list[dict[str, Any]]:
        """The load's looks, as far as they were made."""
        later = itertools.takewhile(self.holds, (f"load-{number}" for number in itertools.count(2)))
        return [self.observation(name) for name in ("load", *later)]

    @functools.cached_property
    def load(self) -> Load:
        """All looks of the load together."""
        return Load.of(self.looks)

    @functools.cached_property
    def tolerances(self) -> Tolerances:
        """What is allowed today."""
        return load_tolerances()

    @functools.cached_property
    def soak(self) -> Soak:
        """The load that was held."""
        return Soak.of(self.observation("soak"), self.tolerances["soak_warm_up"])
