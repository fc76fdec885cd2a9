"""SPEED: the same prompts take less time with MTP."""

from __future__ import annotations

from conformance.harness.check import check, expect_at_least
from conformance.harness.floors import Floors
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
