"""The floors of a profile: those of the files, and of a pair that tells vLLM its acceptance rates, these rates."""

from __future__ import annotations

from dataclasses import replace

import pydantic

from conformance import FIXTURES
from conformance.formats import toml_tables
from conformance.profile.floors import Floor, Floors, load_floors
from conformance.profile.profile import Pair, Profile
from conformance.profile.workload_floors import EACH, WorkloadFloors, load_workload_floors

TOLD = FIXTURES / "told_rates.toml"
RATES = "synthetic_acceptance_rates"  # of vLLM's --speculative-config: joint rates at positions 1 … k


@pydantic.dataclasses.dataclass(frozen=True, config=toml_tables.STRICT)
class _Factors:
    """How much of the rates must be measured; the file explains the keys."""

    all_prompts: float
    each_kind: float
    source: str
    date: str


def floors_of(profile: Profile) -> Floors:
    """The lower bounds of this hardware and pair.

    Raises:
        UsageError: a file is wrong; the sentence names the file, the key and the mend.
    """
    pair = profile.pair
    found = load_floors(FIXTURES / "floors", profile.hardware.name, pair.name, pair.k)
    return replace(found, rows=_told(pair) | dict(found.rows))


def workload_floors_of(profile: Profile) -> WorkloadFloors:
    """The lower bounds of acceptance length on kinds of prompts.

    Raises:
        UsageError: a file is wrong; the sentence names the file, the key and the mend.
    """
    pair = profile.pair
    found = load_workload_floors(FIXTURES / "workloads", pair.name, pair.k)
    rates = _rates(pair)
    if not rates:
        return found
    factors = _factors()
    each = {EACH: _floor(EACH, 1 + sum(rates), factors.each_kind, factors)}
    return replace(found, rows=each | dict(found.rows))


def _told(pair: Pair) -> dict[str, tuple[Floor, ...]]:
    rates = _rates(pair)
    if not rates:
        return {}
    factors = _factors()
    length = (1 + sum(rates),)
    values = {"acceptance_length": length, "acceptance_length_of_pair": length, "acceptance_per_position": rates}
    return {
        name: tuple(_floor(name, value, factors.all_prompts, factors) for value in row) for name, row in values.items()
    }


def _rates(pair: Pair) -> tuple[float, ...]:
    """The joint rates at which the pair tells vLLM to accept its k drafts; empty if they are the draft's own."""
    told = tuple((pair.speculative or {}).get(RATES, ()))
    return told if len(told) == pair.k else ()


def _factors() -> _Factors:
    return toml_tables.read(TOLD, _Factors)


def _floor(name: str, value: float, factor: float, factors: _Factors) -> Floor:
    return Floor(name.replace("_", " "), value, factor, 1, factors.source, factors.date)
