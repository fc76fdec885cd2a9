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
    expect_none(calibration.biased(), among=len(calibration.quantities), source=calibration, note=calibration.note())
    expect_none(calibration.too_narrow(), among=len(calibration.names), source=calibration)
