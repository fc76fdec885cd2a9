"""The deviation of computed numbers from their reference, and its bounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydantic

from conformance.errors import ObservationError, Unsupported
from conformance.formats import toml_tables

Matrix = Sequence[Sequence[float | None]]
ON_GPUS = " on GPUs"


@dataclass(frozen=True)
class Deviation:
    """The largest deviation over all rows: ``error`` is |found - expected| / |expected|, ``cosine`` is of the angle.

    ``defect`` describes outputs that no correct module gives, such as zeros; it is empty for all others.
    """

    error: float
    cosine: float
    defect: str = ""

    def __str__(self) -> str:
        return self.defect or f"off by {self.error:.2%} (cosine {self.cosine:.5f})"


@pydantic.dataclasses.dataclass(frozen=True, config=toml_tables.STRICT)
class Bound:
    """The largest allowed relative error, and the source of this bound."""

    relative_error: float
    source: str
    date: str


@pydantic.dataclasses.dataclass(frozen=True, config=toml_tables.STRICT)
class Likeness:
    """When two samples count as drawn from one distribution, and which difference the test must detect."""

    alarm: float  # a smaller p fails; this share of healthy runs fails by chance
    shift: float  # total variation, as a share of the probability
    source: str
    date: str


def deviation(found: Matrix, expected: Matrix) -> Deviation:
    """Compare an output [rows, columns] with its reference.

    Raises:
        ObservationError: the shapes differ, or the output is empty.
    """
    ours, theirs = np.asarray(found, dtype=float), np.asarray(expected, dtype=float)
    if ours.shape != theirs.shape or not ours.size:
        raise ObservationError(
            f"outputs of shape {list(ours.shape)} cannot be compared with a reference of shape {list(theirs.shape)}"
        )
    if not np.isfinite(ours).all():
        return Deviation(np.inf, 0.0, "not a number")
    if not np.isfinite(theirs).all():
        return Deviation(np.inf, 0.0, "a number where the reference has none")
    lengths = np.linalg.norm(ours, axis=1), np.linalg.norm(theirs, axis=1)
    if not lengths[0].any():
        return Deviation(1.0, 0.0, "all zeros")
    if np.ptp(ours) == 0 and np.ptp(theirs) != 0:
        return Deviation(np.inf, 0.0, f"the constant {ours[0, 0]:g}")
    errors = np.linalg.norm(ours - theirs, axis=1) / np.maximum(lengths[1], np.finfo(float).tiny)
    cosines = (ours * theirs).sum(1) / np.maximum(lengths[0] * lengths[1], np.finfo(float).tiny)
    return Deviation(float(errors.max()), float(cosines.min()))


def load_bounds(path: Path, *, on_gpu: bool) -> dict[str, Bound]:
    """Read the bounds of a TOML file by name; on a GPU, a row "NAME on GPUs" replaces the row NAME.

    Raises:
        UsageError: the file is not valid.
    """
    rows = toml_tables.convert(path, toml_tables.parse(path), dict[str, Bound])
    replaced = {name.removesuffix(ON_GPUS): row for name, row in rows.items() if name.endswith(ON_GPUS)}
    return {name: row for name, row in rows.items() if not name.endswith(ON_GPUS)} | (replaced if on_gpu else {})


def load_likeness(path: Path) -> Likeness:
    """Read ``[same_distribution]`` of a TOML file.

    Raises:
        UsageError: the file is not valid.
    """
    return toml_tables.convert(path, toml_tables.parse(path), dict[str, Likeness])["same_distribution"]


def bound_of(bounds: Mapping[str, Bound], name: str) -> Bound:
    """The bound of that name.

    Raises:
        Unsupported: there is none.
    """
    if name not in bounds:
        raise Unsupported(f"There is no bound for {name}; add one to fixtures/facts/numerics.toml.")
    return bounds[name]
