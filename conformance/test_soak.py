"""SOAK: under a sustained load of minutes or days, no request fails, and speed, acceptance and memory stay stable."""

from __future__ import annotations

from conformance.judging.check import check
from conformance.judging.expectations import expect_at_least, expect_at_most, expect_none
from conformance.profile.tolerances import Tolerances
from conformance.views.soak import HEAT, POWER, Energy, Soak


@check(
    "SOAK-01",
    level="soak",
    severity="blocks serving",
    response="restart-server",
    oracle="self-consistent",
    no_better_oracle="Under a load of hours only the ends of answers are read; TOOL-10 compares whole ones under load.",
    claim="Under a sustained load the server answers every request and stays alive.",
)
def test_every_request_is_answered(soak: Soak) -> None:
    """No request fails, the server does not die, and tokens arrive in every time window."""
    expect_none(soak.objections(), among=soak.request_count, source=soak, note=soak.account())


@check(
    "SOAK-02",
    level="soak",
    severity="slow",
    response="restart-server",
    oracle="paired",
    claim="Throughput does not fall during the soak.",
)
def test_throughput_holds(soak: Soak, tolerances: Tolerances) -> None:
    """Output tokens/s by the server's count, in the last third of the windows over the first third."""
    floor = tolerances.floor("soak_throughput_kept", 1.0, "tokens/s of the last third over the first")
    expect_at_least(soak.throughput_kept(), floor, source=soak, note=soak.throughput_note())


@check(
    "SOAK-03",
    level="soak",
    severity="slow",
    response="restart-server",
    oracle="paired",
    claim="Acceptance length does not fall during the soak.",
)
def test_acceptance_holds(soak: Soak, tolerances: Tolerances) -> None:
    """The prompts are the same all the time, so only the server can have changed."""
    floor = tolerances.floor("soak_acceptance_kept", 1.0, "acceptance length of the last third over the first")
    expect_at_least(soak.acceptance_kept(), floor, source=soak, note=soak.acceptance_note())


@check(
    "SOAK-04",
    level="soak",
    severity="blocks serving",
    response="restart-server",
    oracle="paired",
    claim="The server's memory does not grow.",
)
def test_memory_holds(soak: Soak, tolerances: Tolerances) -> None:
    """Resident memory of all processes, and memory in use on each GPU that reports it, in MiB an hour."""
    step = tolerances["soak_memory_step"]
    for what, growth in (soak.growth(step) | soak.gpu_growth(step)).items():
        name = f"MiB an hour by which {what} grows"
        expect_at_most(growth, tolerances["soak_memory_growth"], source=soak, what=name, note=soak.memory_note())


@check(
    "SOAK-05",
    level="soak",
    severity="slow",
    response="cool-machine",
    oracle="paired",
    claim="GPU clocks do not fall, and neither heat nor power limits lower them.",
)
def test_clocks_hold(soak: Soak, tolerances: Tolerances) -> None:
    """SM clocks and NVML's reasons for lower clocks, of the GPUs that were busy all the time."""
    for what, ratio in soak.clock_ratios().items():
        floor = tolerances.floor("soak_clock_kept", 1.0, f"{what} of the last third over the first")
        expect_at_least(ratio, floor, source=soak, note=soak.clock_note())
    allowed = dict.fromkeys(HEAT, tolerances["soak_thermal_throttling"])
    allowed |= dict.fromkeys(POWER, tolerances["soak_power_throttling"])
    expect_none(soak.throttling(allowed), among=soak.looks, source=soak)


@check(
    "SOAK-06",
    level="soak",
    severity="informational",
    response="measure-again",
    oracle="paired",
    claim="With MTP the GPUs generate more tokens for a joule.",
)
def test_energy(energy: Energy, tolerances: Tolerances) -> None:
    """The same load on both servers in turns, by the energy that NVML counts. The note has tokens/J, tokens/s and W."""
    floor = tolerances.floor("energy_kept", 1.0, "tokens/J with MTP over those without")
    expect_at_least(energy.gain(), floor, source=energy, note=energy.note())
