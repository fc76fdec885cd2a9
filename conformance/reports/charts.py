"""The charts of a report: rows of values with intervals and floors on one axis, from recorded observations."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from conformance.errors import ObservationError, Unsupported
from conformance.judging.stats import Estimate
from conformance.profile.tolerances import Tolerances
from conformance.reports.source import Source
from conformance.views.acceptance import Acceptance, everywhere
from conformance.views.load import Cell
from conformance.views.soak import Soak, acceptance_length_of, throughput
from conformance.views.sweep import Sweep
from conformance.views.texts import Texts

WHOLE, PART, NOISE = "whole", "part", "noise"
INTERVALS = 4  # between two numbers of an axis, about
SPEEDUP_FLOORS = {1: "speedup_sequential", 8: "speedup_concurrent"}  # concurrency -> its floor


@dataclass(frozen=True)
class Row:
    """One value with what it is held against; ``kind`` says whether it is a part of another row, or A/A noise."""

    label: str
    value: float
    low: float
    high: float
    n: int
    floor: float | None = None
    kind: str = WHOLE
    allowed: float | None = None  # what the value could be at best
    figure: str = ""  # its name among the key figures, if it is one
    cells: tuple[str, ...] = ()  # what stands in the chart's own columns

    @classmethod
    def of(cls, label: str, found: Estimate, floor: float | None = None, *, kind: str = WHOLE, figure: str = "") -> Row:
        """An estimate."""
        return cls(label, found.value, found.low, found.high, found.n, floor, kind, figure=figure)


@dataclass(frozen=True)
class Axis:
    """From the first to the last of its round numbers."""

    ticks: tuple[float, ...]

    @classmethod
    def over(cls, low: float, high: float) -> Axis:
        """The shortest axis between round numbers that holds both ends."""
        rough = (high - low) / INTERVALS or 1.0
        size = 10.0 ** math.floor(math.log10(rough))
        step = next(size * digit for digit in (1, 2, 5, 10) if size * digit >= rough)
        first = math.floor(low / step)
        last = max(math.ceil(high / step), first + 1)
        return cls(tuple(step * number for number in range(first, last + 1)))

    def place(self, value: float) -> float:
        """Where a value lies, in percent of the length; one beyond an end lies at the end."""
        first, last = self.ticks[0], self.ticks[-1]
        return 100 * min(1.0, max(0.0, (value - first) / (last - first)))

    def holds(self, value: float) -> bool:
        """Whether the axis reaches as far."""
        return self.ticks[0] <= value <= self.ticks[-1]


@dataclass(frozen=True)
class Chart:
    """Rows on one axis; ``reference`` is a value that is marked through all of them."""

    quantity: str
    rows: tuple[Row, ...]
    caption: str
    reference: float | None = None
    columns: tuple[str, ...] = ()

    @functools.cached_property
    def axis(self) -> Axis:
        """As long as the rows need it; intervals of parts may run off it, since few samples make long ones."""
        marks = [mark for row in self.rows for mark in (row.value, row.floor, row.allowed, self.reference)]
        ends = [end for row in self.rows if row.kind != PART for end in (row.low, row.high)]
        every = [*ends, *(mark for mark in marks if mark is not None)]
        return Axis.over(min(every), max(every))

    @property
    def has_floors(self) -> bool:
        """Whether any row has one."""
        return any(row.floor is not None for row in self.rows)


@dataclass(frozen=True)
class Line:
    """One quantity over time: (minute, value) by window, on an axis of its own; ``said`` is it in words."""

    label: str
    points: tuple[tuple[float, float], ...]
    axis: Axis
    said: str

    @classmethod
    def of(cls, label: str, points: Sequence[tuple[float, float]], *ends: float) -> Line:
        """A line on the shortest axis that holds it and the given ends."""
        values = [value for _, value in points]
        said = " to ".join(f"{end:.0f}" if end >= 100 else f"{end:.4g}" for end in (min(values), max(values)))
        return cls(label, tuple(points), Axis.over(min(*values, *ends), max(*values, *ends)), said)


@dataclass(frozen=True)
class Timeline:
    """Lines with one time, ``axis``, in minutes; up to ``warm_up`` nothing is judged. ``rows`` are the key figures."""

    lines: tuple[Line, ...]
    caption: str
    axis: Axis
    warm_up: float
    rows: tuple[Row, ...]

    def path(self, line: Line) -> str:
        """The points of a line as SVG has them, in percent from the left and from the top."""
        places = ((self.axis.place(minute), 100 - line.axis.place(value)) for minute, value in line.points)
        return " ".join(f"{x:.2f},{y:.2f}" for x, y in places)


def joint_acceptance(source: Source) -> Chart:
    """Every draft position against its floor."""
    found, floors = everywhere(source.load).joint(), source.floors.each("acceptance_per_position")
    rows = [
        Row.of(f"position {place}", each, floor.bound)
        for place, (each, floor) in enumerate(zip(found, floors, strict=True), 1)
    ]
    caption = "Joint: the share of drafts whose tokens were all accepted up to and including this position."
    return Chart("joint acceptance", tuple(rows), caption)


def acceptance_length(source: Source) -> Chart:
    """Tokens for each step of the target, of all prompts and of each category."""
    whole = everywhere(source.load)
    floor = source.floors["acceptance_length"].bound
    rows = [Row.of("all prompts", whole.length(), floor, figure="acceptance length")]
    for category in sorted({found.category for found in whole.counts}):
        counts = tuple(found for found in whole.counts if found.category == category)
        if sum(found.drafts for found in counts):
            length = Acceptance(whole.k, counts, whole.source).length()
            rows.append(Row.of(category or "of no category", length, kind=PART))
    caption = f"Tokens that one step of the target yields: 1 + accepted / drafts, at most {whole.k + 1}; 1 without MTP."
    return Chart("tokens a step", tuple(rows), caption)


def speedup(source: Source) -> Chart:
    """By concurrency, each with its noise and its categories."""
    rows = [row for cell in source.load.cells.values() for row in _of_cell(cell, source)]
    caption = (
        "Seconds without MTP over seconds with it. A/A is the server without MTP against itself: the noise that every "
        "speedup is seen through. Categories are compared answer by answer, and only where enough rounds asked them."
    )
    return Chart("times faster", tuple(rows), caption, 1.0)


def _of_cell(cell: Cell, source: Source) -> Iterator[Row]:
    judged = SPEEDUP_FLOORS.get(cell.concurrency)
    floor = source.load.floor_here(source.floors[judged]).bound if judged else None
    yield Row.of(cell.name, cell.speedup(), floor, figure=f"speedup {cell.name}" if judged else "")
    if noise := cell.against_itself():
        yield Row.of(f"A/A {cell.name}", noise, kind=NOISE)
    for category, found in sorted(cell.by_category().items()):
        yield Row.of(category or "of no category", found, kind=PART)


def sweep(source: Source) -> Chart:
    """Measured and allowed speedup at every k."""
    seen = Sweep.of(source.observation("sweep"))
    rows = []
    for k in seen.swept:
        point, label = seen.at(k), f"k = {k}, the pair's" if k == seen.k else f"k = {k}"
        cells = f"{point.allowed:.2f}", f"{point.length:.2f}", f"{point.step:.1f}"
        found = point.speedup
        rows.append(Row(label, found.value, found.low, found.high, found.n, allowed=point.allowed, cells=cells))
    caption = (
        f"Time to decode a token without MTP over that with it, by prompt, and (hollow) what acceptance and the cost "
        f"of a step allow. {seen.best()}"
    )
    columns = "allowed", "length", "ms a step"
    return Chart("times faster", tuple(rows), caption, 1.0, columns)


def equal_texts(source: Source) -> Chart:
    """Greedy texts with MTP against those without, and those without against themselves."""
    texts = Texts.of(source.observation("near_ties"))
    rows = (
        Row.of("with MTP against without", texts.equal_share(with_mtp=True), figure="equal greedy texts"),
        Row.of("A/A without MTP", texts.equal_share(with_mtp=False), kind=NOISE),
    )
    caption = (
        "The share of greedy answers that are equal token for token. A/A is the server without MTP against itself, "
        "again and in other batches: MTP may differ from it no more than it does from itself."
    )
    return Chart("share of answers", rows, caption)


def soak(source: Source) -> Timeline:
    """What a held load was like from window to window."""
    seen = source.soak
    lines = [
        Line.of("output tokens/s", seen.over_time(throughput), 0.0),
        Line.of("acceptance length", seen.over_time(acceptance_length_of), 1.0, seen.facts["k"] + 1.0),
    ]
    for label, points in seen.told().items():
        values = [value for _, value in points]
        lines.append(Line.of(label, points, 0.98 * min(values), 1.02 * max(values)))  # noise is to look like noise
    minutes = seen.facts["minutes"]
    caption = (
        f"{seen.account()}. A point is a window. The last third after the warm-up (shaded) is held against the first; "
        "growth of memory is that of the second half."
    )
    rows = tuple(_drifts(seen, source.tolerances))
    return Timeline(tuple(lines), caption, Axis.over(0.0, minutes), minutes * seen.warm_up, rows)


def _drifts(seen: Soak, tolerances: Tolerances) -> Iterator[Row]:
    """The key figures, as far as there are windows enough for them."""
    for label, estimate, tolerance in (
        ("throughput kept", seen.throughput_kept, "soak_throughput_kept"),
        ("acceptance length kept", seen.acceptance_kept, "soak_acceptance_kept"),
    ):
        with contextlib.suppress(ObservationError):
            yield Row.of(label, estimate(), 1 - tolerances[tolerance], figure=label)
    with contextlib.suppress(ObservationError, Unsupported):
        for label, growth in seen.growth(tolerances["soak_memory_step"]).items():
            yield Row.of(label, growth, figure=f"growth of {label}, MiB an hour")


@dataclass(frozen=True)
class Drawing:
    """A chart that a report has where its evidence holds the observation."""

    id: str
    title: str
    observation: str
    draw: Callable[[Source], Chart | Timeline]


DRAWINGS = (
    Drawing("acceptance", "Acceptance by position", "load", joint_acceptance),
    Drawing("length", "Acceptance length", "load", acceptance_length),
    Drawing("texts", "Equal greedy texts", "near_ties", equal_texts),
    Drawing("sweep", "Speedup at every k", "sweep", sweep),
    Drawing("speedup", "Speedup by concurrency and category", "load", speedup),
    Drawing("soak", "A held load over time", "soak", soak),
)
