"""CAL: the suite measures correctly where the true values are known."""

from __future__ import annotations

from conformance.judging.check import check
from conformance.judging.expectations import expect_none
from conformance.views.calibration import Calibration


@check(
    "CAL-01",
    level="qualify",
    severity="informational",
    response="distrust-intervals",
    oracle="independent",
    claim="The suite's confidence intervals contain the true acceptance rates where these are known.",
)
def test_calibration(calibration: Calibration) -> None:
    """Draft tokens are accepted at random at known rates. This runs last, because it changes the server meanwhile."""
    found = calibration
    among = len(found.quantities), len(found.names)
    expect_none(found.biased(), among=among[0], source=found, note=found.note(), seen=found.bias_seen())
    expect_none(found.too_narrow(), among=among[1], source=found, seen=found.coverage_seen())
