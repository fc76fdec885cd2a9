"""Tolerances: by how much two values that should be equal may differ, with their provenance."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pydantic

from conformance import FIXTURES
from conformance.errors import UsageError
from conformance.formats import toml_tables
from conformance.profile.floors import Floor


@pydantic.dataclasses.dataclass(frozen=True, config=toml_tables.STRICT)
class Tolerance:
    """One table of fixtures/facts/tolerances.toml."""

    value: float
    source: str
    date: str


@dataclass(frozen=True)
class Tolerances:
    """All tolerances: ``tolerances["length_ratio"]`` is a number."""

    file: str
    rows: Mapping[str, Tolerance] = field(repr=False)

    def __getitem__(self, name: str) -> float:
        if name not in self.rows:
            raise UsageError(f'{self.file}: key "{name}" is missing; add it.')
        return self.rows[name].value

    def floor(self, name: str, reference: float, what: str) -> Floor:
        """The floor that is lower than ``reference`` by this tolerance."""
        bound, row = reference - self[name], self.rows[name]
        return Floor(what, bound, 1.0, 1, row.source, row.date)


@functools.cache
def load_tolerances(path: Path = FIXTURES / "facts" / "tolerances.toml") -> Tolerances:
    """Read the file.

    Raises:
        UsageError: the file is wrong; the sentence names the file, the key and the mend.
    """
    return Tolerances(str(path), toml_tables.convert(path, toml_tables.parse(path), dict[str, Tolerance]))
