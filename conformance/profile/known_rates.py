"""Known acceptance rates, at which the instrument is calibrated: one TOML file says which, and how."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from pydantic.dataclasses import dataclass

from conformance import FIXTURES
from conformance.errors import UsageError
from conformance.formats import toml_tables
from conformance.formats.toml_tables import STRICT

PATH = FIXTURES / "calibration.toml"


@dataclass(frozen=True, config=STRICT)
class Rates:
    """Chances in [0, 1] that a draft is accepted up to and including position 1 … (joint), and where they are from."""

    name: str
    joint: tuple[float, ...]
    seed: int
    source: str
    date: str

    def joint_for(self, k: int) -> tuple[float, ...]:
        """The joint rates at positions 1 … k; past the last one given its conditional rate goes on."""
        joint = list(self.joint[:k])
        while len(joint) < k:
            joint.append(joint[-1] * conditional_rates(self.joint)[-1])
        return tuple(joint)


@dataclass(frozen=True, config=STRICT)
class Plan:
    """How the calibration is made: the keys are explained in the file."""

    max_tokens: int
    at_once: int
    chance: float
    coverage: tuple[float, float]
    source: str
    date: str
    rates: tuple[Rates, ...]


def load_plan(path: Path = PATH) -> Plan:
    """The plan; raises UsageError naming file, key and mend, for rates that rise or leave [0, 1] among others."""
    plan = toml_tables.read(path, Plan)
    for row in plan.rates:
        if not row.joint or any(not 0 <= after <= before for before, after in pairwise((1.0, *row.joint))):
            raise UsageError(
                f'{path}: joint rates of "{row.name}" are {list(row.joint)}; they must not rise from 1 on.'
            )
    if not plan.rates:
        raise UsageError(f"{path}: there are no rates in it; add some.")
    return plan


def conditional_rates(joint: tuple[float, ...]) -> tuple[float, ...]:
    """The chance at each position, given that the one before was accepted; 0 where that never happens."""
    return tuple(here / before if before else 0.0 for before, here in pairwise((1.0, *joint)))
