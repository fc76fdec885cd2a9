"""CAL: the instrument says what is true where the truth is known."""

from __future__ import annotations

from conformance.judging.check import check
from conformance.judging.expectations import expect_none
from conformance.views.calibration import Calibration


@check("CAL-01", level="qualify", claim="The instrument's intervals cover known acceptance rates.")
def test_calibration(calibration: Calibration) -> None:
    """Drafts that are accepted at random with known rates; comes last, because coins decide in the server meanwhile."""
    expect_none(calibration.biased(), among=len(calibration.quantities), source=calibration, note=calibration.note())
    expect_none(calibration.too_narrow(), among=len(calibration.names), source=calibration)
