"""Acceptance by position and speedup by concurrency as one picture, from recorded evidence."""

from __future__ import annotations

import io
from collections.abc import Sequence

import matplotlib

matplotlib.use("Agg")  # opens no window

from matplotlib import pyplot
from matplotlib.axes import Axes

from conformance.judging.stats import Estimate
from conformance.profile.floors import Floor, Floors
from conformance.reports.charts import SPEEDUP_FLOORS
from conformance.views.acceptance import everywhere
from conformance.views.load import Load

SEEN, NOISE, FLOOR = "#1a5fb4", "#9a9996", "#c01c28"


def as_svg(load: Load, floors: Floors, caption: str) -> str:
    """The picture as SVG, with text as text; the same evidence gives the same bytes."""
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "conformance", "font.size": 9}):
        figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.4), layout="constrained", width_ratios=[2, 3])
        _acceptance(left, load, floors)
        _speedup(right, load, floors)
        for axes in (left, right):
            axes.spines[["top", "right"]].set_visible(False)
        figure.suptitle(caption, fontsize=9, color="#5e5c64")
        sink = io.StringIO()
        figure.savefig(sink, format="svg", metadata={"Date": None, "Creator": None})
        pyplot.close(figure)
    return "\n".join(line.rstrip() for line in sink.getvalue().splitlines()) + "\n"


def _acceptance(axes: Axes, load: Load, floors: Floors) -> None:
    joint = everywhere(load).joint()
    places = list(range(1, len(joint) + 1))
    _dots(axes, places, joint, SEEN, "joint acceptance")
    for place, floor in zip(places, floors.each("acceptance_per_position"), strict=True):
        _mark(axes, place, floor, "floor" if place == 1 else "_")  # one entry in the legend is enough
    axes.set(xlabel="draft position", ylabel="share of drafts", ylim=(0, 1.05), xticks=places)
    axes.legend(frameon=False, loc="lower left")


def _speedup(axes: Axes, load: Load, floors: Floors) -> None:
    cells = list(load.cells.values())
    places = list(range(len(cells)))
    _dots(axes, places, [cell.speedup() for cell in cells], SEEN, "without MTP / with MTP")
    noise = [(place, found) for place, cell in zip(places, cells, strict=True) if (found := cell.against_itself())]
    _dots(axes, [place for place, _ in noise], [found for _, found in noise], NOISE, "A/A: without / without")
    for concurrency, name in SPEEDUP_FLOORS.items():
        if concurrency in load.cells:
            place = list(load.cells).index(concurrency)
            _mark(axes, place, load.floor_here(floors[name]), "floor" if concurrency == 1 else "_")
    axes.axhline(1, color="#c0bfbc", linewidth=0.8, zorder=0)
    axes.set(xlabel="requests at once", ylabel="speedup", ylim=(0, None))
    axes.set_xticks(places, [str(cell.concurrency) for cell in cells])
    axes.legend(frameon=False, loc="lower left", ncols=2)


def _mark(axes: Axes, place: int, floor: Floor, label: str) -> None:
    if floor.bound is not None:
        axes.hlines(floor.bound, place - 0.3, place + 0.3, color=FLOOR, label=label)


def _dots(axes: Axes, places: Sequence[int], found: Sequence[Estimate], colour: str, label: str) -> None:
    below = [max(0.0, each.value - each.low) for each in found]
    above = [max(0.0, each.high - each.value) for each in found]
    values = [each.value for each in found]
    axes.errorbar(places, values, yerr=[below, above], fmt="o", color=colour, capsize=3, markersize=4, label=label)
