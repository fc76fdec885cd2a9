"""SOAK: under a load that is held for minutes or days nothing fails, slows down, forgets or grows."""

from __future__ import annotations

from conformance.judging.check import check
from conformance.judging.expectations import expect_at_least, expect_at_most, expect_none
from conformance.profile.tolerances import Tolerances
from conformance.views.soak import HEAT, POWER, Soak


@check("SOAK-01", level="soak", claim="Under a held load every request is answered, and the server lives.")
def test_every_request_is_answered(soak: Soak) -> None:
    """No failure, no death, and no window of seconds in which not one token came."""
    expect_none(soak.objections(), among=soak.asked, source=soak, note=soak.account())


@check("SOAK-02", level="soak", claim="Throughput at the end is what it was at the beginning.")
def test_throughput_holds(soak: Soak, tolerances: Tolerances) -> None:
    """Output tokens/s as the server counts them, the last third of the windows over the first."""
    floor = tolerances.floor("soak_throughput_kept", 1.0, "tokens/s of the last third over the first")
    expect_at_least(soak.throughput_kept(), floor, source=soak, note=soak.speeds())


@check("SOAK-03", level="soak", claim="Acceptance length at the end is what it was at the beginning.")
def test_acceptance_holds(soak: Soak, tolerances: Tolerances) -> None:
    """The same prompts are asked all the time, so that only the server can have changed."""
    floor = tolerances.floor("soak_acceptance_kept", 1.0, "acceptance length of the last third over the first")
    expect_at_least(soak.acceptance_kept(), floor, source=soak, note=soak.lengths())


@check("SOAK-04", level="soak", claim="The server's memory does not grow.")
def test_memory_holds(soak: Soak, tolerances: Tolerances) -> None:
    """Resident memory of all its processes, and what is in use on each GPU that tells, in MiB an hour."""
    step = tolerances["soak_memory_step"]
    for what, growth in (soak.growth(step) | soak.gpu_growth(step)).items():
        name = f"MiB an hour by which {what} grows"
        expect_at_most(growth, tolerances["soak_memory_growth"], source=soak, what=name, note=soak.memory())


@check("SOAK-05", level="soak", claim="GPU clocks hold, and neither heat nor power lowers them.")
def test_clocks_hold(soak: Soak, tolerances: Tolerances) -> None:
    """SM clocks and NVML's reasons for lower ones, of the GPUs that were at work all the time."""
    for what, ratio in soak.clocks_kept().items():
        floor = tolerances.floor("soak_clock_kept", 1.0, f"{what}, last third over the first")
        expect_at_least(ratio, floor, source=soak, note=soak.heat())
    allowed = dict.fromkeys(HEAT, tolerances["soak_thermal_throttling"])
    allowed |= dict.fromkeys(POWER, tolerances["soak_power_throttling"])
    expect_none(soak.throttled(allowed), among=soak.looks, source=soak)
