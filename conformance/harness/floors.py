"""Floors: lower bounds with their provenance, one TOML for a hardware and a pair."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pydantic

from conformance.harness import tables
from conformance.harness.errors import UsageError


@pydantic.dataclasses.dataclass(frozen=True, config=tables.STRICT)
class _Row:
    """One table of the file: every floor states its provenance."""

    value: float | tuple[float, ...]
    factor: float
    n: int
    source: str
    date: str
    enforced: bool = True
    expected: float | tuple[float, ...] | None = None
    spread: float | None = None
    seconds: float | None = None
    planned_from: str = ""


@dataclass(frozen=True)
class Floor:
    """One bound: the published ``value`` times the ``factor`` that this hardware is allowed.

    A floor that is not ``enforced`` is shown beside the value and fails nothing. The rest are planning figures for
    ``--plan`` (harness/power.py), which judge nothing: the ``expected`` value, the standard deviation of a sample (of
    its logarithm, for speedups), the seconds a sample takes, and where all that comes from.
    """

    name: str
    value: float
    factor: float
    n: int
    source: str
    date: str
    enforced: bool = True
    expected: float | None = None
    spread: float | None = None
    seconds: float | None = None
    planned_from: str = ""

    @property
    def bound(self) -> float:
        """What an interval's bad end has to clear."""
        return self.value * self.factor


@dataclass(frozen=True)
class Floors:
    """All floors of a profile: ``floors["acceptance_length"]``, or ``floors.each(...)`` for one per draft position."""

    file: str
    rows: Mapping[str, tuple[Floor, ...]] = field(repr=False)

    def __getitem__(self, name: str) -> Floor:
        floors = self.each(name)
        if len(floors) != 1:
            raise UsageError(f'{self.file}: key "{name}.value" must be one number, not {len(floors)}.')
        return floors[0]

    def each(self, name: str) -> tuple[Floor, ...]:
        """The floors of a list-valued row, in the order of the list (draft position 1 first)."""
        if name not in self.rows:
            raise UsageError(f'{self.file}: key "{name}" is missing; add it.')
        return self.rows[name]


def has_floors(directory: Path, hardware: str, pair: str) -> bool:
    """Whether anybody's figures are known for them."""
    return _file(directory, hardware, pair).is_file()


def load_floors(directory: Path, hardware: str, pair: str) -> Floors:
    """Read ``<directory>/<hardware>.<pair>.toml``; raises UsageError naming file, key and mend."""
    path = _file(directory, hardware, pair)
    if not path.is_file():
        raise UsageError(f"{path}: there are no floors of {pair} on {hardware}; write them there, with their sources.")
    rows = tables.convert(path, tables.parse(path), dict[str, _Row])
    return Floors(str(path), {name: _floors(path, name, row) for name, row in rows.items()})


def _file(directory: Path, hardware: str, pair: str) -> Path:
    return directory / f"{hardware}.{pair}.toml"


def _floors(path: Path, name: str, row: _Row) -> tuple[Floor, ...]:
    values = (row.value,) if isinstance(row.value, float) else row.value
    expected = row.expected if isinstance(row.expected, tuple) else (row.expected,) * len(values)
    if len(expected) != len(values):
        raise UsageError(f'{path}: key "{name}.expected" must be as long as "{name}.value".')
    provenance = (row.factor, row.n, row.source, row.date, row.enforced)
    planning = (row.spread, row.seconds, row.planned_from)
    return tuple(
        Floor(name.replace("_", " "), value, *provenance, hoped, *planning)
        for value, hoped in zip(values, expected, strict=True)
    )
