"""ACC: the target accepts as many drafted tokens as it should."""

from __future__ import annotations

from conformance.harness.check import check, expect_at_least, expect_each_at_least
from conformance.harness.floors import Floors
from conformance.harness.views.acceptance import Acceptance


@check("ACC-01", level="qualify", claim="Acceptance length reaches its floor.")
def test_acceptance_length(acceptance: Acceptance, floors: Floors) -> None:
    """1 + accepted / drafts: tokens that one step of the target yields."""
    expect_at_least(acceptance.length(), floors["acceptance_length"], source=acceptance)


@check("ACC-02", level="qualify", claim="Joint acceptance reaches its floor at every draft position.")
def test_joint_acceptance(acceptance: Acceptance, floors: Floors) -> None:
    """Share of drafts accepted up to and including position 1 … k."""
    expect_each_at_least(
        acceptance.joint(),
        floors.each("acceptance_per_position"),
        source=acceptance,
        what="joint acceptance",
        note=acceptance.conditional(),
    )
