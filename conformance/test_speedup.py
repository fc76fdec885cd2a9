"""SPEED: the same prompts take less time with MTP, as much less as they can."""

from __future__ import annotations

from conformance.harness.check import check, expect_all, expect_at_least
from conformance.harness.floors import Floors
from conformance.harness.views.bench import AGREED, Bench, Tolerance
from conformance.harness.views.sweep import Sweep
from conformance.harness.views.timings import Timings


@check("SPEED-01", level="qualify", claim="Three requests in a row are faster with MTP, by their floor.")
def test_sequential_speedup(timings: Timings, floors: Floors) -> None:
    """Seconds without over seconds with, round by round."""
    arm = timings.sequential
    expect_at_least(arm.speedup(), floors["speedup_sequential"], source=arm, what="speedup in a row", note=arm.noise())


@check("SPEED-02", level="qualify", claim="Eight requests at once are faster with MTP, by their floor.")
def test_concurrent_speedup(timings: Timings, floors: Floors) -> None:
    """Seconds without over seconds with, round by round."""
    arm = timings.concurrent
    expect_at_least(arm.speedup(), floors["speedup_concurrent"], source=arm, what="speedup at once", note=arm.noise())


@check("SPEED-03", level="qualify", claim="The speedup is what acceptance and the cost of a step allow.")
def test_speedup_of_expected(sweep: Sweep, floors: Floors) -> None:
    """Measured over expected: acceptance length / (1 + k · c_draft / c_target + overhead), by a sweep over k."""
    floor = floors["speedup_of_expected"]
    expect_at_least(sweep.of_expected(), floor, source=sweep, what="measured over expected speedup", note=sweep.note())


@check("SPEED-04", level="qualify", claim="`vllm bench serve` measures the same.")
def test_bench_agrees(bench: Bench, bench_tolerance: Tolerance) -> None:
    """Output tokens/s and acceptance length of the same prompts; a difference is an ERROR of the instrument."""
    expect_all(bench.agreement(bench_tolerance.share), {AGREED}, source=bench, note=bench.note())
