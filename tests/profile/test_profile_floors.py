"""Floors of a pair that tells vLLM at which rates to accept its drafts: these rates, less what chance may take."""

from __future__ import annotations

from dataclasses import replace

import pytest

from conformance import FIXTURES
from conformance.profile.profile import Profile, load_pair, load_profile
from conformance.profile.profile_floors import floors_of, workload_floors_of


def served(**changed: object) -> Profile:
    """A profile with 26B-A4B's shapes and random weights, which tells vLLM the published rates."""
    pair = load_pair(FIXTURES / "models/geometry-26b-a4b-nvfp4.toml")
    return replace(load_profile("cpu", "micro-26b-a4b-nvfp4", "qualify"), pair=replace(pair, **changed))


def test_the_told_rates_are_the_floors() -> None:
    floors = floors_of(served())
    assert [floor.bound for floor in floors.each("acceptance_per_position")] == pytest.approx(
        [0.95 * rate for rate in (0.85, 0.72, 0.62, 0.51)]
    )
    for name in ("acceptance_length", "acceptance_length_of_pair"):
        assert floors[name].bound == pytest.approx(0.95 * 3.70)
    assert workload_floors_of(served())["code"].bound == pytest.approx(0.9 * 3.70)


@pytest.mark.parametrize("changed", [{"speculative": None}, {"speculative": {}}, {"k": 2}])
def test_without_a_rate_for_each_draft_there_is_no_such_floor(changed: dict[str, object]) -> None:
    assert floors_of(served(**changed))["acceptance_length_of_pair"].bound is None
    assert workload_floors_of(served(**changed))["code"].bound is None


def test_a_figure_in_the_files_goes_before_the_told_rates() -> None:
    own = served(name="micro-26b-a4b-nvfp4")
    assert floors_of(own)["acceptance_length_of_pair"].bound != pytest.approx(0.95 * 3.70)
    assert workload_floors_of(own)["code"].bound == pytest.approx(2.79)
