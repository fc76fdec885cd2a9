"""ACC: the target accepts as many drafted tokens as it should."""

from __future__ import annotations

from conformance.judging.check import check
from conformance.judging.expectations import expect_at_least, expect_at_least_by_looks, expect_each_at_least_by_looks
from conformance.judging.sequential import Looks
from conformance.profile.floors import Floors
from conformance.profile.tolerances import Tolerances
from conformance.views.acceptance import Acceptance, everywhere, kept
from conformance.views.load import Load


@check("ACC-01", level="qualify", claim="Acceptance length reaches its floor.")
def test_acceptance_length(load: Looks[Load], floors: Floors) -> None:
    """1 + accepted / drafts: tokens that one step of the target yields, over all requests."""
    expect_at_least_by_looks(
        load.map(everywhere), Acceptance.length, floors["acceptance_length"], note=Acceptance.by_category
    )


@check("ACC-02", level="qualify", claim="Joint acceptance reaches its floor at every draft position.")
def test_joint_acceptance(load: Looks[Load], floors: Floors) -> None:
    """Share of drafts accepted up to and including position 1 … k, over all requests."""
    expect_each_at_least_by_looks(
        load.map(everywhere),
        Acceptance.joint,
        floors.each("acceptance_per_position"),
        what="joint acceptance",
        note=Acceptance.conditional,
    )


@check("ACC-03", level="qualify", claim="Acceptance among several requests is what it is in a row.")
def test_acceptance_at_concurrency(load: Looks[Load], tolerances: Tolerances) -> None:
    """A draft that reads the rows of another request leaves every text right, and fails only here."""
    seen = load.first()
    for name, ratio in kept(seen).items():
        floor = tolerances.floor("acceptance_kept", 1.0, f"acceptance length {name} over in a row")
        expect_at_least(ratio, floor, source=seen, note=f"acceptance length {name} over in a row: {ratio}")


@check("ACC-04", level="qualify", claim="Acceptance length is what this pair reaches elsewhere.")
def test_acceptance_of_the_pair(load: Looks[Load], floors: Floors) -> None:
    """The published floor leaves room to a good pair; a tenth less than its own figure is a defect all the same."""
    expect_at_least_by_looks(load.map(everywhere), Acceptance.length, floors["acceptance_length_of_pair"])
