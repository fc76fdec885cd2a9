"""docs/releases-figure.svg: acceptance length and speedup by release, with their intervals."""

from __future__ import annotations

import io
from collections.abc import Sequence

import matplotlib

matplotlib.use("Agg")  # opens no window

from matplotlib import pyplot
from matplotlib.axes import Axes

from conformance.profile.release_facts import Release

COLOUR = "#1a5fb4"


def as_svg(releases: Sequence[Release]) -> str:
    """One small panel for each figure, one dot with its interval for each release that has it.

    Raises:
        ValueError: no release has a figure.
    """
    names = list(dict.fromkeys(name for each in releases for name in each.figures))
    if not names:
        raise ValueError("no release has a figure")
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "conformance", "font.size": 8}):
        size = (4.2, 1.5 * len(names) + 0.6)
        figure, rows = pyplot.subplots(len(names), 1, figsize=size, layout="constrained", sharex=True, squeeze=False)
        for (axes,), name in zip(rows, names, strict=True):
            _panel(axes, [each for each in releases if each.hardware == releases[0].hardware], name)
        sink = io.StringIO()
        figure.savefig(sink, format="svg", metadata={"Date": None, "Creator": None})
        pyplot.close(figure)
    return "\n".join(line.rstrip() for line in sink.getvalue().splitlines()) + "\n"


def _panel(axes: Axes, releases: Sequence[Release], name: str) -> None:
    found = {place: each.figures[name] for place, each in enumerate(releases) if name in each.figures}
    values = [value for value, _, _ in found.values()]
    below = [value - low for value, low, _ in found.values()]
    above = [high - value for value, _, high in found.values()]
    axes.errorbar(list(found), values, yerr=[below, above], fmt="o", color=COLOUR, markersize=3, linewidth=1)
    axes.set_title(name, fontsize=8, loc="left")
    axes.set_xticks(range(len(releases)), [each.release for each in releases], rotation=90)
    axes.spines[["top", "right"]].set_visible(False)
