"""ACC: the target accepts enough of the drafted tokens."""

from __future__ import annotations

from conformance.judging.check import check
from conformance.judging.expectations import (
    expect_all_at_least_by_looks,
    expect_at_least,
    expect_at_least_by_looks,
    expect_each_at_least_by_looks,
)
from conformance.judging.sequential import Looks
from conformance.profile.floors import Floors
from conformance.profile.tolerances import Tolerances
from conformance.profile.workload_floors import WorkloadFloors
from conformance.views.acceptance import Acceptance, everywhere, ratios_to_sequential
from conformance.views.load import Load


@check(
    "ACC-01",
    level="qualify",
    severity="slow",
    response="inspect-draft",
    oracle="published",
    claim="Acceptance length reaches its floor.",
)
def test_acceptance_length(load: Looks[Load], floors: Floors) -> None:
    """1 + accepted / drafts, the mean number of tokens that one target step yields, over all requests."""
    expect_at_least_by_looks(
        load.map(everywhere), Acceptance.length, floors["acceptance_length"], note=Acceptance.by_category
    )


@check(
    "ACC-02",
    level="qualify",
    severity="slow",
    response="inspect-draft",
    oracle="published",
    claim="Joint acceptance reaches its floor at every draft position.",
)
def test_joint_acceptance(load: Looks[Load], floors: Floors) -> None:
    """The share of drafts that are accepted up to and including each position from 1 to k, over all requests."""
    expect_each_at_least_by_looks(
        load.map(everywhere),
        Acceptance.joint,
        floors.each("acceptance_per_position"),
        what="joint acceptance",
        note=Acceptance.conditional,
    )


@check(
    "ACC-03",
    level="qualify",
    severity="slow",
    response="inspect-draft",
    oracle="paired",
    claim="Concurrent requests do not reduce acceptance length.",
)
def test_acceptance_at_concurrency(load: Looks[Load], tolerances: Tolerances) -> None:
    """A draft that reads the rows of another request changes no text, so no other check detects it."""
    seen = load.first()
    for name, ratio in ratios_to_sequential(seen).items():
        what = f"acceptance length {name} over acceptance length in a row"
        floor = tolerances.floor("acceptance_kept", 1.0, what)
        expect_at_least(ratio, floor, source=seen, note=f"{what}: {ratio}")


@check(
    "ACC-04",
    level="qualify",
    severity="slow",
    response="inspect-draft",
    oracle="self-consistent",
    no_better_oracle="Nobody publishes figures of such a pair, so its reference is this project's own earlier runs.",
    claim="Acceptance length reaches the floor set by this pair's own reference figure.",
)
def test_acceptance_of_the_pair(load: Looks[Load], floors: Floors) -> None:
    """A good pair can lose a tenth of its acceptance length to a defect and still reach the published floor."""
    expect_at_least_by_looks(load.map(everywhere), Acceptance.length, floors["acceptance_length_of_pair"])


@check(
    "ACC-05",
    level="qualify",
    severity="slow",
    response="inspect-draft",
    oracle="published",
    claim="Acceptance length on each kind of prompts reaches the figure known for this pair.",
    upstream="vllm#47920",
)
def test_acceptance_by_workload(load: Looks[Load], workload_floors: WorkloadFloors) -> None:
    """Categories of the prompts, and public data sets that --dataset recognises. A mean can hide a bad category."""
    names = everywhere(load.first()).kinds()
    expect_all_at_least_by_looks(
        load.map(everywhere),
        lambda seen, level: [seen.on(name).length(level) for name in names],
        [workload_floors[name] for name in names],
    )
