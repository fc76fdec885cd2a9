"""Floors: lower bounds with their provenance, in one TOML file for a pair and one for a pair on a hardware.

Without a published figure there is no floor: the value is measured and reported, but not judged.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pydantic

from conformance.errors import UsageError
from conformance.formats import toml_tables

NAMES = (
    "acceptance_length",
    "acceptance_per_position",
    "acceptance_length_of_pair",
    "speedup_sequential",
    "speedup_concurrent",
    "speedup_of_expected",
    "pays",
)


@pydantic.dataclasses.dataclass(frozen=True, config=toml_tables.STRICT)
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
    """One bound: the published ``value`` times the ``factor`` that this hardware may have.

    Without a ``value`` there is no floor, ``reason`` says why, and nothing is compared with it. A floor that is not
    ``enforced`` is shown beside the value and fails nothing. The other fields are planning figures for ``--plan``
    (judging/sample_size.py), which judge nothing: the ``expected`` value, the standard deviation of a sample (of its
    logarithm, for speedups), the seconds of a sample, and the source of these figures.
    """

    name: str
    value: float | None
    factor: float = 1.0
    n: int = 0
    source: str = ""
    date: str = ""
    enforced: bool = True
    expected: float | None = None
    spread: float | None = None
    seconds: float | None = None
    planned_from: str = ""
    reason: str = "no published figure is known"

    @property
    def bound(self) -> float | None:
        """The bound that the worse end of an interval must reach."""
        return None if self.value is None else self.value * self.factor


@dataclass(frozen=True)
class Floors:
    """All floors of a profile: ``floors["acceptance_length"]``, or ``floors.each(...)`` for each draft position."""

    file: str
    k: int
    rows: Mapping[str, tuple[Floor, ...]] = field(repr=False)

    def __getitem__(self, name: str) -> Floor:
        floors = self.rows.get(name, (_unknown(name),))
        if len(floors) != 1:
            raise UsageError(f'{self.file}: key "{name}.value" must be one number, not {len(floors)}.')
        return floors[0]

    def each(self, name: str) -> tuple[Floor, ...]:
        """The floors of a list-valued row, in the order of the list (draft position 1 first)."""
        return self.rows.get(name, (_unknown(name),) * self.k)


def load_floors(directory: Path, hardware: str, pair: str, k: int) -> Floors:
    """Read ``any.toml``, ``<pair>.toml`` and ``<hardware>.<pair>.toml``; rows of a later file replace earlier ones.

    A missing file or row holds no floor.

    Raises:
        UsageError: a file is wrong; the sentence names the file, the key and the mend.
    """
    of_pair, here = directory / f"{pair}.toml", directory / f"{hardware}.{pair}.toml"
    return Floors(str(here), k, _read(directory / "any.toml") | _read(of_pair) | _read(here))


def _read(path: Path) -> dict[str, tuple[Floor, ...]]:
    rows = toml_tables.convert(path, toml_tables.parse(path), dict[str, _Row]) if path.is_file() else {}
    for name in rows:
        if name not in NAMES:
            hint = toml_tables.nearest(name, NAMES)
            raise UsageError(f'{path}: key "{name}" is no floor; write one of {", ".join(NAMES)}.{hint}')
    return {name: _floors(path, name, row) for name, row in rows.items()}


def _unknown(name: str) -> Floor:
    return Floor(_words(name), None)


def _words(name: str) -> str:
    return name.replace("_", " ")


def _floors(path: Path, name: str, row: _Row) -> tuple[Floor, ...]:
    values = (row.value,) if isinstance(row.value, float) else row.value
    expected = row.expected if isinstance(row.expected, tuple) else (row.expected,) * len(values)
    if len(expected) != len(values):
        raise UsageError(f'{path}: key "{name}.expected" must be as long as "{name}.value".')
    for key, numbers in {"value": values, "factor": (row.factor,)}.items():
        for number in numbers:
            if not 0 < number < math.inf:
                raise UsageError(f'{path}: key "{name}.{key}" is {number:g}; it must be a number above 0.')
    provenance = (row.factor, row.n, row.source, row.date, row.enforced)
    planning = (row.spread, row.seconds, row.planned_from)
    return tuple(
        Floor(_words(name), value, *provenance, hoped, *planning) for value, hoped in zip(values, expected, strict=True)
    )
