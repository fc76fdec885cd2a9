"""The known acceptance rates of the calibration, and how it is made, from one TOML file."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from pydantic.dataclasses import dataclass

from conformance import FIXTURES
from conformance.errors import UsageError
from conformance.formats import toml_tables
from conformance.formats.toml_tables import STRICT

PATH = FIXTURES / "calibration.toml"
PUBLISHED = "published"  # the name of the rates that were published for Gemma 4


@dataclass(frozen=True, config=STRICT)
class Rates:
    """Joint rates: probabilities that a draft is accepted up to and including position 1 …, with their source."""

    name: str
    joint: tuple[float, ...]
    seed: int
    source: str
    date: str

    def joint_for(self, k: int) -> tuple[float, ...]:
        """The joint rates at positions 1 … k; after the last given position, its conditional rate is repeated."""
        joint = list(self.joint[:k])
        while len(joint) < k:
            joint.append(joint[-1] * conditional_rates(self.joint)[-1])
        return tuple(joint)


@dataclass(frozen=True, config=STRICT)
class Plan:
    """How the calibration is made; the file explains the keys."""

    max_tokens: int
    at_once: int
    chance: float
    coverage: tuple[float, float]
    source: str
    date: str
    rates: tuple[Rates, ...]

    def named(self, name: str) -> Rates:
        """The rates with this name.

        Raises:
            UsageError: the file has none.
        """
        for row in self.rates:
            if row.name == name:
                return row
        raise UsageError(f'{PATH}: key "rates" has no row with the name "{name}"; add it.')


def load_plan(path: Path = PATH) -> Plan:
    """The plan of the calibration.

    Raises:
        UsageError: the file is wrong, for example if rates rise or are outside [0, 1]; the sentence names the file, the
            key and the mend.
    """
    plan = toml_tables.read(path, Plan)
    for row in plan.rates:
        if not row.joint or any(not 0 <= after <= before for before, after in pairwise((1.0, *row.joint))):
            raise UsageError(
                f'{path}: joint rates of "{row.name}" are {list(row.joint)}; they must not rise from 1 on.'
            )
    if not plan.rates:
        raise UsageError(f'{path}: key "rates" holds no rates; add some.')
    return plan


def conditional_rates(joint: tuple[float, ...]) -> tuple[float, ...]:
    """The probability at each position, given that the previous one was accepted; 0 if that never happens."""
    return tuple(here / before if before else 0.0 for before, here in pairwise((1.0, *joint)))
