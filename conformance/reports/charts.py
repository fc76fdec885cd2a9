"""The charts of a report: rows of values with intervals and floors on one axis, from recorded observations."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from conformance.errors import ObservationError, Unsupported
from conformance.judging.stats import Estimate
from conformance.profile.arm_facts import load_arm_facts
from conformance.profile.tolerances import Tolerances
from conformance.profile.workload_floors import kinds
from conformance.reports.source import Source
from conformance.views.acceptance import everywhere
from conformance.views.load import Cell
from conformance.views.served.served_load import ServedLoad
from conformance.views.soak import Soak, acceptance_length_of, throughput
from conformance.views.steps.graph_steps import GraphSteps
from conformance.views.steps.k_by_batch import KByBatch
from conformance.views.sweep import Sweep
from conformance.views.texts import Texts

WHOLE, PART, NOISE = "whole", "part", "noise"
INTERVALS = 4  # about how many intervals an axis has
SPEEDUP_FLOORS = {1: "speedup_sequential", 8: "speedup_concurrent"}  # concurrency -> its floor


@dataclass(frozen=True)
class Row:
    """One value with its interval and floor; ``kind``: a whole, a part of another row, or A/A noise."""

    label: str
    value: float
    low: float
    high: float
    n: int
    floor: float | None = None
    kind: str = WHOLE
    allowed: float | None = None  # the best possible value
    figure: str = ""  # its name among the key figures, if it is one
    cells: tuple[str, ...] = ()  # the cells of the chart's own columns

    @classmethod
    def of(cls, label: str, found: Estimate, floor: float | None = None, *, kind: str = WHOLE, figure: str = "") -> Row:
        """The row of an estimate."""
        return cls(label, found.value, found.low, found.high, found.n, floor, kind, figure=figure)


@dataclass(frozen=True)
class Axis:
    """An axis from the first to the last of its round numbers."""

    ticks: tuple[float, ...]

    @classmethod
    def over(cls, low: float, high: float) -> Axis:
        """The shortest axis between round numbers that contains both ends."""
        rough = (high - low) / INTERVALS or 1.0
        size = 10.0 ** math.floor(math.log10(rough))
        step = next(size * digit for digit in (1, 2, 5, 10) if size * digit >= rough)
        first = math.floor(low / step)
        last = max(math.ceil(high / step), first + 1)
        return cls(tuple(step * number for number in range(first, last + 1)))

    def place(self, value: float) -> float:
        """The position of a value in percent of the length; a value outside the axis is at its end."""
        first, last = self.ticks[0], self.ticks[-1]
        return 100 * min(1.0, max(0.0, (value - first) / (last - first)))

    def holds(self, value: float) -> bool:
        """Whether the value is on the axis."""
        return self.ticks[0] <= value <= self.ticks[-1]


@dataclass(frozen=True)
class Chart:
    """Rows on one axis; ``reference`` is a value with a mark through all rows."""

    quantity: str
    rows: tuple[Row, ...]
    caption: str
    reference: float | None = None
    columns: tuple[str, ...] = ()

    @functools.cached_property
    def axis(self) -> Axis:
        """The axis of all rows. Intervals of parts may leave it, because few samples give long intervals."""
        marks = [mark for row in self.rows for mark in (row.value, row.floor, row.allowed, self.reference)]
        ends = [end for row in self.rows if row.kind != PART for end in (row.low, row.high)]
        every = [*ends, *(mark for mark in marks if mark is not None)]
        return Axis.over(min(every), max(every))

    @property
    def has_floors(self) -> bool:
        """Whether any row has a floor."""
        return any(row.floor is not None for row in self.rows)


@dataclass(frozen=True)
class Line:
    """One quantity over time: (minute, value) for each window, on its own axis; ``said`` is its range in words."""

    label: str
    points: tuple[tuple[float, float], ...]
    axis: Axis
    said: str

    @classmethod
    def of(cls, label: str, points: Sequence[tuple[float, float]], *ends: float) -> Line:
        """A line on the shortest axis that contains it and the given ends."""
        values = [value for _, value in points]
        said = " to ".join(f"{end:.0f}" if end >= 100 else f"{end:.4g}" for end in (min(values), max(values)))
        return cls(label, tuple(points), Axis.over(min(*values, *ends), max(*values, *ends)), said)


@dataclass(frozen=True)
class Timeline:
    """Lines over one axis, in minutes or another unit; nothing before ``warm_up`` is judged. ``rows``: key figures."""

    lines: tuple[Line, ...]
    caption: str
    axis: Axis
    warm_up: float
    rows: tuple[Row, ...]
    over: str = "time"
    unit: str = " min"  # of the axis

    def path(self, line: Line) -> str:
        """The points of a line for SVG, in percent from the left and from the top."""
        places = ((self.axis.place(minute), 100 - line.axis.place(value)) for minute, value in line.points)
        return " ".join(f"{x:.2f},{y:.2f}" for x, y in places)


def joint_acceptance(source: Source) -> Chart:
    """Joint acceptance at every draft position, with its floor."""
    found, floors = everywhere(source.load).joint(), source.floors.each("acceptance_per_position")
    rows = [
        Row.of(f"position {place}", each, floor.bound)
        for place, (each, floor) in enumerate(zip(found, floors, strict=True), 1)
    ]
    caption = "Joint: the share of drafts whose tokens were all accepted up to and including this position."
    return Chart("joint acceptance", tuple(rows), caption)


def acceptance_length(source: Source) -> Chart:
    """Tokens for each step of the target, for all prompts and for each category."""
    whole = everywhere(source.load)
    floor = source.floors["acceptance_length"].bound
    rows = [Row.of("all prompts", whole.length(), floor, figure="acceptance length")]
    for kind in kinds(found.category for found in whole.counts if found.drafts):
        bound = source.workload_floors[kind].bound
        rows.append(Row.of(kind or "of no category", whole.on(kind).length(), bound, kind=PART))
    caption = f"Tokens that one step of the target yields: 1 + accepted / drafts, at most {whole.k + 1}; 1 without MTP."
    return Chart("tokens a step", tuple(rows), caption)


def speedup(source: Source) -> Chart:
    """The speedup at each concurrency, with its noise and its categories."""
    rows = [row for cell in source.load.cells.values() for row in _cell_rows(cell, source)]
    caption = (
        "Seconds without MTP divided by seconds with MTP. A/A compares the server without MTP with itself: this is the "
        "noise of every speedup. Categories are compared answer by answer, if enough rounds asked them."
    )
    return Chart("times faster", tuple(rows), caption, 1.0)


def _cell_rows(cell: Cell, source: Source) -> Iterator[Row]:
    judged = SPEEDUP_FLOORS.get(cell.concurrency)
    floor = source.load.floor_here(source.floors[judged]).bound if judged else None
    yield Row.of(cell.name, cell.speedup(), floor, figure=f"speedup {cell.name}" if judged else "")
    if noise := cell.against_itself():
        yield Row.of(f"A/A {cell.name}", noise, kind=NOISE)
    for category, found in sorted(cell.by_category().items()):
        yield Row.of(category or "of no category", found, kind=PART)


def sweep(source: Source) -> Chart:
    """The measured and the possible speedup at every k."""
    seen = Sweep.of(source.observation("sweep"))
    rows = []
    for k in seen.swept:
        point, label = seen.at(k), f"k = {k}, the pair's" if k == seen.k else f"k = {k}"
        cells = f"{point.allowed:.2f}", f"{point.length:.2f}", f"{point.step:.1f}"
        found = point.speedup
        rows.append(Row(label, found.value, found.low, found.high, found.n, allowed=point.allowed, cells=cells))
    caption = (
        f"Time to decode a token without MTP divided by the time with MTP, by prompt. Hollow marks show the speedup "
        f"that acceptance and the cost of a step allow. {seen.best()}"
    )
    columns = "allowed", "length", "ms a step"
    return Chart("times faster", tuple(rows), caption, 1.0, columns)


def k_by_batch(source: Source) -> Chart:
    """The speedup of every k by the number of requests at once; the fastest k comes first."""
    seen = KByBatch.of(source.observation("k_by_batch"))
    rows = []
    for number, cells in seen.cells.items():
        fastest = seen.fastest(number)
        for cell in (fastest, *(cells[k] for k in sorted(cells) if k != fastest.k)):
            shown = f"{cell.rate:.0f}", f"{cell.rate_without:.0f}", f"{cell.length:.2f}"
            row = Row.of(cell.name, cell.speedup(), kind=WHOLE if cell is fastest else PART)
            rows.append(replace(row, cells=shown))
    caption = (
        "Seconds for a token without MTP divided by the seconds with MTP, of all requests together. "
        f"{seen.rates()} {seen.advice()}"
    )
    return Chart("times faster", tuple(rows), caption, 1.0, ("tokens/s", "without MTP", "length"))


def served(source: Source) -> Chart:
    """The speedup by part of an answer and prompt length, as people serve it and as it is measured."""
    seen = ServedLoad.of(source.observation("served_load"), source.load, source.config, load_arm_facts())
    rows = [Row.of("all", seen.speedup(), figure="speedup as people serve it")]
    for each in seen.by_part():
        rows += [Row.of(f"{each.part}, {each.label}", each.served), Row.of("measured", each.measured, kind=PART)]
    caption = (
        "Seconds without MTP divided by seconds with MTP, by part of the answer and tokens of the prompt. The measured "
        "servers differ in nothing but MTP; as people serve them, each has vLLM's defaults. "
        f"{seen.difference()}."
    )
    return Chart("times faster", tuple(rows), caption, 1.0)


def requests_at_once(source: Source) -> Timeline:
    """Tokens/s and the time of a step by the number of requests at once."""
    seen = GraphSteps.of(source.observation("graph_steps"))
    lines = []
    for arm in seen.arms:
        lines.append(Line.of(f"tokens/s {arm.name}", [(n, max(rates)) for n, rates in arm.rates.items()], 0.0))
        lines.append(Line.of(f"ms a step {arm.name}", list(arm.step_ms.items()), 0.0))
    found = seen.cliffs(source.tolerances["requests_cliff"])
    caption = f"By the number of requests at once. {'; '.join(found) if found else 'No cliff.'}"
    most = max(arm.most for arm in seen.arms)
    return Timeline(tuple(lines), caption, Axis.over(1.0, most), 0.0, (), over="requests at once", unit="")


def equal_texts(source: Source) -> Chart:
    """Equal greedy texts with MTP and without, and, as a control, without MTP twice."""
    texts = Texts.of(source.observation("near_ties"))
    rows = (
        Row.of("with MTP against without", texts.equal_share(with_mtp=True), figure="equal greedy texts"),
        Row.of("A/A without MTP", texts.equal_share(with_mtp=False), kind=NOISE),
    )
    caption = (
        "The share of greedy answers that are equal token by token. A/A compares the server without MTP with itself, "
        "repeated and in other batches: MTP may not differ more than the server differs from itself."
    )
    return Chart("share of answers", rows, caption)


def soak(source: Source) -> Timeline:
    """A long load from window to window."""
    seen = source.soak
    lines = [
        Line.of("output tokens/s", seen.over_time(throughput), 0.0),
        Line.of("acceptance length", seen.over_time(acceptance_length_of), 1.0, seen.facts["k"] + 1.0),
    ]
    for label, points in seen.told().items():
        values = [value for _, value in points]
        lines.append(Line.of(label, points, 0.98 * min(values), 1.02 * max(values)))  # so that noise looks small
    minutes = seen.facts["minutes"]
    caption = (
        f"{seen.account()}. Each point is a window. The last third after the warm-up (shaded) is compared with the "
        "first; the growth of memory is that of the second half."
    )
    rows = tuple(_drifts(seen, source.tolerances))
    return Timeline(tuple(lines), caption, Axis.over(0.0, minutes), minutes * seen.warm_up, rows)


def _drifts(seen: Soak, tolerances: Tolerances) -> Iterator[Row]:
    """The key figures for which there are enough windows."""
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
    """A chart that a report shows if the evidence holds its observation."""

    id: str
    title: str
    observation: str
    draw: Callable[[Source], Chart | Timeline]


DRAWINGS = (
    Drawing("acceptance", "Acceptance by position", "load", joint_acceptance),
    Drawing("length", "Acceptance length", "load", acceptance_length),
    Drawing("texts", "Equal greedy texts", "near_ties", equal_texts),
    Drawing("sweep", "Speedup at every k", "sweep", sweep),
    Drawing("k-by-batch", "Speedup of every k by requests at once", "k_by_batch", k_by_batch),
    Drawing("speedup", "Speedup by concurrency and category", "load", speedup),
    Drawing("served", "Speedup as people serve it", "served_load", served),
    Drawing("requests", "Speed by requests at once", "graph_steps", requests_at_once),
    Drawing("soak", "A held load over time", "soak", soak),
)
