"""Floors of acceptance length on kinds of prompts: one TOML file for a pair, with the k of each figure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pydantic

from conformance.formats import toml_tables
from conformance.profile.floors import Floor

PARTS = "/"  # between a workload and its category, as in "mt-bench/writing"
EACH = "each"  # the row of every kind that has none of its own


@pydantic.dataclasses.dataclass(frozen=True, config=toml_tables.STRICT)
class _Row:
    value: float
    k: int
    factor: float
    n: int
    source: str
    date: str


@dataclass(frozen=True)
class WorkloadFloors:
    """The floors of a pair, by workload or category; ``floors["gsm8k"]`` has no value if none is known for this k."""

    k: int
    rows: Mapping[str, Floor]

    def __getitem__(self, name: str) -> Floor:
        unknown = Floor("", None, reason=f"no figure of this pair is known for {name} at k = {self.k}")
        found = self.rows.get(name, self.rows.get(EACH, unknown))
        return replace(found, name=f"acceptance length on {name}")


def load_workload_floors(directory: Path, pair: str, k: int) -> WorkloadFloors:
    """Read ``<directory>/<pair>.toml``; without the file there is no floor.

    Raises:
        UsageError: the file is wrong; the sentence names the file, the key and the mend.
    """
    path = directory / f"{pair}.toml"
    rows = toml_tables.convert(path, toml_tables.parse(path), dict[str, _Row]) if path.is_file() else {}
    floors = {
        name: Floor(name, row.value, row.factor, row.n, row.source, row.date)
        for name, row in rows.items()
        if row.k == k
    }
    return WorkloadFloors(k, floors)


def kinds(categories: Iterable[str]) -> list[str]:
    """The categories, each workload of several categories before them."""
    every = sorted(set(categories))
    workloads = {name.partition(PARTS)[0] for name in every if PARTS in name}
    return sorted({*every, *workloads})


def is_of(category: str, kind: str) -> bool:
    """Whether a category is this kind, or a part of it."""
    return category == kind or category.startswith(kind + PARTS)
