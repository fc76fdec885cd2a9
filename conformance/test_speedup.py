"""SPEED: MTP speeds up the same prompts as much as their acceptance allows."""

from __future__ import annotations

from conformance.errors import ObservationError
from conformance.judging.check import check
from conformance.judging.expectations import expect_agreement, expect_at_least, expect_at_least_by_looks
from conformance.judging.sequential import Looks
from conformance.profile.floors import Floors
from conformance.profile.tolerances import Tolerances
from conformance.views.bench import Bench
from conformance.views.first_token import account
from conformance.views.load import Cell, Load
from conformance.views.steps.k_by_batch import KByBatch
from conformance.views.sweep import Sweep


@check(
    "SPEED-01",
    level="qualify",
    severity="slow",
    response="measure-again",
    oracle="published",
    claim="The speedup of three requests in a row reaches its floor.",
)
def test_sequential_speedup(load: Looks[Load], floors: Floors) -> None:
    """Seconds without MTP over seconds with MTP, prompt by prompt."""
    expect_at_least_by_looks(
        load.map(lambda seen: seen.at(1)),
        Cell.speedup,
        load.first().floor_here(floors["speedup_sequential"]),
        what="speedup in a row",
        note=account,
    )


@check(
    "SPEED-02",
    level="qualify",
    severity="slow",
    response="measure-again",
    oracle="published",
    claim="The speedup of eight requests at once reaches its floor.",
)
def test_concurrent_speedup(load: Looks[Load], floors: Floors) -> None:
    """Seconds without MTP over seconds with MTP, round by round, until the last of the eight answers is complete."""
    expect_at_least_by_looks(
        load.map(lambda seen: seen.at(8)),
        Cell.speedup,
        load.first().floor_here(floors["speedup_concurrent"]),
        what="speedup 8 at once",
        note=account,
    )


@check(
    "SPEED-03",
    level="qualify",
    severity="slow",
    response="measure-again",
    oracle="self-consistent",
    no_better_oracle="The cost of a draft step depends on the machine, so both sides come from the same run.",
    claim="The speedup reaches the required share of what acceptance and step costs allow.",
    swept=True,
)
def test_speedup_of_expected(sweep: Sweep, floors: Floors) -> None:
    """A sweep over k gives the expected speedup: acceptance length / (1 + k · c_draft / c_target + overhead)."""
    floor = floors["speedup_of_expected"]
    expect_at_least(
        sweep.share_of_expected(), floor, source=sweep, what="measured over expected speedup", note=sweep.note()
    )


@check(
    "SPEED-04",
    level="qualify",
    severity="informational",
    response="measure-again",
    oracle="independent",
    claim="`vllm bench serve` measures the same speed and acceptance length as this suite.",
)
def test_bench_agrees(bench: Bench, tolerances: Tolerances) -> None:
    """By output tokens/s and acceptance length of the same prompts. A difference is an ERROR of the suite."""
    bounds = tolerances["bench_agreement"], tolerances["bench_difference"]
    expect_agreement(bench.speed_ratio(), *bounds, source=bench, what="output tokens/s", note=bench.note())
    expect_agreement(bench.acceptance_ratio(), *bounds, source=bench, what="acceptance length")


@check(
    "SPEED-05",
    level="qualify",
    severity="slow",
    response="measure-again",
    oracle="paired",
    claim="Requests are faster with MTP at every tested concurrency.",
)
def test_mtp_pays(load: Looks[Load], floors: Floors) -> None:
    """The note says up to which concurrency MTP is faster.

    Raises:
        ObservationError: the load has no measured rounds.
    """
    seen = load.first()
    if not seen.cells:
        raise ObservationError(f"{seen.source}: no rounds were measured")
    for cell in seen.cells.values():
        expect_at_least(cell.speedup(), floors["pays"], source=seen, what=f"speedup {cell.name}", note=seen.pays())


@check(
    "SPEED-06",
    level="k-by-batch",
    severity="slow",
    response="correct-launch",
    oracle="paired",
    claim="With the pair's k, MTP is not slower than without at any number of requests at once.",
    upstream="vllm#49548",
)
def test_k_by_batch(k_by_batch: KByBatch, floors: Floors) -> None:
    """At the published acceptance rates. The note says which k is the fastest where, and gives vLLM's schedule."""
    note = k_by_batch.note()
    for cell in k_by_batch.own:
        expect_at_least(cell.speedup(), floors["pays"], source=k_by_batch, what=f"speedup {cell.name}", note=note)
