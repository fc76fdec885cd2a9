"""The table of coverage: how often the intervals of small trials contain the true value."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date
from typing import Any

from conformance.judging.stats import CONFIDENCE
from conformance.reports.sanitize import json_text
from conformance.views.calibration import Calibration, Coverage, Quantity

FORMAT = 1
BEGIN, END = "<!-- coverage: begin -->", "<!-- coverage: end -->"
COLUMNS = ("rates", "quantity", "truth", "found", "trials", "covered", "share", "mean half width")
TOGETHER = ("quantity, all rates", "trials", "covered", "share", "sound")

Rows = Iterable[Sequence[str]]


def as_markdown(coverage: Coverage, today: date) -> str:
    """Both tables, the summary first, below a line that says what was measured, when and where."""
    found = coverage.calibration
    return f"{_title(coverage, today)}\n\n{_table(TOGETHER, _together(found))}\n{_table(COLUMNS, _each(found))}"


def as_json(coverage: Coverage, today: date) -> str:
    """The same for programs; ``wrong`` holds the sentences that say why the instrument is not sound."""
    found, profile = coverage.calibration, coverage.profile
    document = {
        "format": FORMAT,
        "date": str(today),
        "vllm": coverage.environment["imported"]["vllm"],
        **{"hardware": profile.hardware.name, "pair": profile.pair.name, "k": profile.pair.k},
        **{"acceptance_by": coverage.method, "intervals_by": _methods(found), "confidence": CONFIDENCE},
        "quantities": [
            dict(zip(("name", "covered", "trials"), (n, *found.coverage(n)), strict=True)) for n in found.names
        ],
        "each": [_quantity(each) for each in found.quantities],
        "wrong": found.wrong(),
    }
    return json_text(document)


def _quantity(each: Quantity) -> dict[str, Any]:
    return {
        **{"rates": each.rates, "name": each.name, "truth": each.truth, "found": each.found},
        **{"trials": len(each.intervals), "covered": each.covered, "mean_half_width": each.half_width},
    }


def _title(coverage: Coverage, today: date) -> str:
    sizes, about, plan = coverage.profile.sizes, coverage.environment, coverage.calibration.plan
    return (
        f"{today}: vLLM {about['imported']['vllm']} on {coverage.profile.hardware.name} ({about['machine']}, "
        f"{about['cpu_count']} cores, Python {about['python']}), {coverage.profile.pair.name}, "
        f"k = {coverage.profile.pair.k}. Acceptance by {coverage.method}; at each vector of rates "
        f"{sizes.calibration_trials} trials of {sizes.calibration_prompts} answers of {plan.max_tokens} tokens; "
        f"{CONFIDENCE:.0%} intervals by {_methods(coverage.calibration)}."
    )


def _methods(found: Calibration) -> str:
    return ", ".join(dict.fromkeys(each.method for quantity in found.quantities for each in quantity.intervals))


def _together(found: Calibration) -> Rows:
    low, high = found.plan.coverage
    for name in found.names:
        covered, trials = found.coverage(name)
        sound = "yes" if low <= covered / trials <= high else f"no: outside {low:.0%} to {high:.0%}"
        yield name, str(trials), str(covered), f"{covered / trials:.1%}", sound


def _each(found: Calibration) -> Rows:
    for each in found.quantities:
        trials = len(each.intervals)
        numbers = f"{each.truth:.3f}", f"{each.found:.3f}", str(trials), str(each.covered)
        yield each.rates, each.name, *numbers, f"{each.covered / trials:.1%}", f"{each.half_width:.3f}"


def _table(columns: Sequence[str], rows: Rows) -> str:
    return "".join(f"| {' | '.join(cells)} |\n" for cells in [columns, ["---"] * len(columns), *rows])
