"""SPEED: the same prompts take less time with MTP."""

from __future__ import annotations

from conformance.harness.check import check, expect_at_least, expect_at_least_by_looks
from conformance.harness.errors import ObservationError
from conformance.harness.floors import Floors
from conformance.harness.looks import Looks
from conformance.harness.views.load import Cell, Load


@check("SPEED-01", level="qualify", claim="Three requests in a row are faster with MTP, by their floor.")
def test_sequential_speedup(load: Looks[Load], floors: Floors) -> None:
    """Seconds without over seconds with, prompt by prompt."""
    expect_at_least_by_looks(
        load.map(lambda seen: seen.at(1)),
        Cell.speedup,
        floors["speedup_sequential"],
        what="speedup in a row",
        note=Cell.account,
    )


@check("SPEED-02", level="qualify", claim="Eight requests at once are faster with MTP, by their floor.")
def test_concurrent_speedup(load: Looks[Load], floors: Floors) -> None:
    """Seconds without over seconds with, prompt by prompt."""
    expect_at_least_by_looks(
        load.map(lambda seen: seen.at(8)),
        Cell.speedup,
        floors["speedup_concurrent"],
        what="speedup at once",
        note=Cell.account,
    )


@check("SPEED-05", level="qualify", claim="MTP pays at every concurrency of the grid.")
def test_mtp_pays(load: Looks[Load], floors: Floors) -> None:
    """Up to how many requests at once MTP is worth having, in one sentence."""
    seen = load.first()
    if not seen.cells:
        raise ObservationError(f"{seen.source}: nothing was compared")
    for cell in seen.cells.values():
        expect_at_least(cell.speedup(), floors["pays"], source=seen, what=f"speedup {cell.name}", note=seen.pays())
