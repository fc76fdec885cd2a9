"""Views of energy, of both clients, of calibration and of the selection of a backend, at their edges."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from conformance.errors import ObservationError
from conformance.judging import stats
from conformance.views import bench, soak
from conformance.views.calibration import Calibration
from conformance.views.moe_oracle import Device
from conformance.views.wiring import Wiring


def window(**gpu: float | None) -> dict[str, Any]:
    return {"seconds": 4.0, "output_tokens": 100, "gpus": [{"energy_j": None, "power_w": None} | gpu]}


@pytest.mark.parametrize(
    ("told", "joules", "counted"),
    [
        ({"energy_j": 50.0, "power_w": 9.0}, 50.0, True),
        ({"power_w": 3.0}, 12.0, False),
        ({}, 0.0, False),
    ],
)
def test_energy_is_what_the_gpu_counted_or_its_power_over_the_time(
    told: dict[str, float], joules: float, counted: bool
) -> None:
    found = soak._window(window(**told), [0])
    assert (found.joules, found.counted, found.seconds, found.tokens) == (joules, counted, 4.0, 100)


def test_energy_of_several_gpus_is_added() -> None:
    row = window(energy_j=5.0)
    row["gpus"].append({"energy_j": None, "power_w": 2.0})
    both, second = soak._window(row, [0, 1]), soak._window(row, [1])
    assert (both.joules, both.counted) == (13.0, False)
    assert second.joules == 8.0


def test_figures_of_a_window() -> None:
    row = {"begin": 10.0, "end": 14.0, "counted": {"output_tokens": 100, "drafts": 20, "accepted": 50}}
    assert soak.throughput(row) == 25
    assert soak.acceptance_length_of(row) == 3.5
    idle = row | {"counted": {"output_tokens": 0, "drafts": 0, "accepted": 0}}
    with pytest.raises(ObservationError) as refused:
        soak.acceptance_length_of(idle)
    assert refused.value.sentence == "nothing was drafted between 10 and 14 s"


def runs(*seconds: tuple[float, float]) -> list[dict[str, Any]]:
    """Runs of both clients, which take so long for 10 tokens."""
    told = {"output_tokens": 10, "drafts": 2, "accepted": 8, "client_cpu_seconds": 1.0}
    return [
        {"client": who, "seconds": one, **told}
        for pair in seconds
        for who, one in zip(("vllm", "ours"), pair, strict=True)
    ]


def test_the_half_width_is_that_of_vllms_time_over_ours() -> None:
    pairs = [(1.0 + 0.1 * number, 2.0) for number in range(6)]
    expected = stats.agreement([one for one, _ in pairs], [other for _, other in pairs]).half_width
    assert bench.speed_half_width(runs(*pairs)) == pytest.approx(expected)


@pytest.mark.parametrize(("share", "inside"), [(0.93, True), (0.97, True), (0.92, False), (0.98, False)])
def test_coverage_outside_its_limits_is_told(share: float, inside: bool) -> None:
    found = SimpleNamespace(
        plan=SimpleNamespace(coverage=(0.93, 0.97)), names=("length",), coverage=lambda _: (round(share * 100), 100)
    )
    said = f"the intervals of length contain the true value in {share:.1%} of trials, but 93% to 97% is required"
    assert Calibration.outside(found) == ([] if inside else [said])  # type: ignore[arg-type]


@pytest.mark.parametrize(("chosen", "before"), [("C", ["A", "B"]), ("A", []), ("none", ["A", "B", "C"])])
def test_what_the_selection_tries_before_its_choice(chosen: str, before: list[str]) -> None:
    device = SimpleNamespace(order=["A", "B", "C"], chosen=chosen)
    assert [each for each in device.order if Device.comes_before_choice(device, each)] == before  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("drafted", "mean"),
    [
        (None, 0),
        ({"drafts": 0, "draft_tokens": 0}, 0),
        ({"drafts": 1, "draft_tokens": 4}, 4),
        ({"drafts": 4, "draft_tokens": 10}, 2.5),
    ],
)
def test_tokens_in_a_draft(drafted: dict[str, int] | None, mean: float) -> None:
    assert Wiring.tokens_per_draft(SimpleNamespace(drafted=drafted)) == mean  # type: ignore[arg-type]
