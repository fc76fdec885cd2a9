"""SPEED: the same prompts take less time with MTP, as much less as they can."""

from __future__ import annotations

from conformance.errors import ObservationError
from conformance.judging.check import check
from conformance.judging.expectations import expect_agreement, expect_at_least, expect_at_least_by_looks
from conformance.judging.sequential import Looks
from conformance.profile.floors import Floors
from conformance.profile.tolerances import Tolerances
from conformance.views.bench import Bench
from conformance.views.load import Cell, Load
from conformance.views.sweep import Sweep


@check("SPEED-01", level="qualify", claim="Three requests in a row are faster with MTP, by their floor.")
def test_sequential_speedup(load: Looks[Load], floors: Floors) -> None:
    """Seconds without over seconds with, prompt by prompt."""
    expect_at_least_by_looks(
        load.map(lambda seen: seen.at(1)),
        Cell.speedup,
        load.first().floor_here(floors["speedup_sequential"]),
        what="speedup in a row",
        note=Cell.account,
    )


@check("SPEED-02", level="qualify", claim="Eight requests at once are faster with MTP, by their floor.")
def test_concurrent_speedup(load: Looks[Load], floors: Floors) -> None:
    """Seconds without over seconds with, until the last of the eight has its answer, round by round."""
    expect_at_least_by_looks(
        load.map(lambda seen: seen.at(8)),
        Cell.speedup,
        load.first().floor_here(floors["speedup_concurrent"]),
        what="speedup at once",
        note=Cell.account,
    )


@check("SPEED-03", level="qualify", claim="The speedup is what acceptance and the cost of a step allow.")
def test_speedup_of_expected(sweep: Sweep, floors: Floors) -> None:
    """Measured over expected: acceptance length / (1 + k · c_draft / c_target + overhead), by a sweep over k."""
    floor = floors["speedup_of_expected"]
    expect_at_least(sweep.of_expected(), floor, source=sweep, what="measured over expected speedup", note=sweep.note())


@check("SPEED-04", level="qualify", claim="`vllm bench serve` measures the same.")
def test_bench_agrees(bench: Bench, tolerances: Tolerances) -> None:
    """Output tokens/s and acceptance length of the same prompts; a difference is an ERROR of the instrument."""
    tolerance = tolerances["bench_agreement"]
    expect_agreement(bench.speed_ratio(), tolerance, source=bench, what="output tokens/s", note=bench.note())
    expect_agreement(bench.acceptance_ratio(), tolerance, source=bench, what="acceptance length")


@check("SPEED-05", level="qualify", claim="MTP pays at every concurrency of the grid.")
def test_mtp_pays(load: Looks[Load], floors: Floors) -> None:
    """Up to how many requests at once MTP is worth having, in one sentence."""
    seen = load.first()
    if not seen.cells:
        raise ObservationError(f"{seen.source}: nothing was compared")
    for cell in seen.cells.values():
        expect_at_least(cell.speedup(), floors["pays"], source=seen, what=f"speedup {cell.name}", note=seen.pays())
