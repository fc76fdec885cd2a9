"""Charts: every value with its interval, its floor and its noise, on an axis that holds them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from support import synthetic

from conformance.evidence.folder import Evidence
from conformance.profile.profile import load_profile
from conformance.reports import charts
from conformance.reports.charts import NOISE, PART, WHOLE, Axis, Chart, Row, Timeline
from conformance.reports.source import Source

PROFILE = load_profile("cpu", "micro-26b-a4b-nvfp4", "qualify")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    folder = synthetic.record(tmp_path_factory.mktemp("evidence") / "run", synthetic.healthy())
    return Source(Evidence(folder, recording=False), PROFILE)


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0.51, 0.994, (0.4, 0.6, 0.8, 1.0)),
        (0.81, 4.0, (0, 1, 2, 3, 4)),
        (3.68, 4.97, (3.5, 4.0, 4.5, 5.0)),
        (1.0, 1.0, (1, 2)),
        (0.987, 1.0, (0.985, 0.99, 0.995, 1.0)),
        (1200, 5100, (1000, 2000, 3000, 4000, 5000, 6000)),
    ],
)
def test_an_axis_has_round_numbers_and_holds_both_ends(low: float, high: float, ticks: tuple[float, ...]) -> None:
    axis = Axis.over(low, high)
    assert axis.ticks == pytest.approx(ticks)
    assert axis.holds(low)
    assert axis.holds(high)
    assert axis.place(axis.ticks[0]) == 0
    assert axis.place(axis.ticks[-1]) == 100
    assert 0 <= axis.place(low) <= axis.place(high) <= 100


def test_what_lies_beyond_an_axis_is_drawn_at_its_end() -> None:
    axis = Axis((0.0, 1.0, 2.0))
    assert axis.place(7.0) == 100
    assert axis.place(-1.0) == 0
    assert not axis.holds(7.0)


def test_long_intervals_of_parts_do_not_stretch_the_axis() -> None:
    rows = Row("whole", 2.0, 1.5, 2.5, 40), Row("part", 2.2, 0.1, 90.0, 3, kind=PART)
    assert Chart("times", rows, "", 1.0).axis.ticks[-1] <= 4


def test_every_position_stands_beside_its_floor(source: Source) -> None:
    rows = charts.joint_acceptance(source).rows
    assert [row.floor for row in rows] == [0.85, 0.72, 0.62, 0.51]
    assert [row.label for row in rows] == [f"position {place}" for place in (1, 2, 3, 4)]
    assert all(row.low <= row.value <= row.high for row in rows)


def test_lengths_are_of_all_prompts_and_of_each_category(source: Source) -> None:
    whole, *parts = charts.acceptance_length(source).rows
    assert (whole.kind, whole.floor, whole.figure) == (WHOLE, 3.68, "acceptance length")
    assert {row.kind for row in parts} == {PART}
    asked = {prompt for row in synthetic.load()["rounds"] for prompt in row["prompts"]}
    assert [row.label for row in parts] == sorted({synthetic.category(prompt) for prompt in asked})


def test_speedups_have_their_noise_beside_them(source: Source) -> None:
    rows = charts.speedup(source).rows
    wholes = [row for row in rows if row.kind == WHOLE]
    assert [row.label for row in wholes] == ["in a row", "3 at once", "8 at once", "17 at once"]
    assert [row.floor for row in wholes] == [2.34, None, 1.91, None]
    assert rows[1].label == "A/A in a row"
    assert rows[1].kind == NOISE
    assert rows[1].value == pytest.approx(1 / 1.01, abs=0.02)
    assert {row.kind for row in rows} == {WHOLE, PART, NOISE}
    parts = [row for row in rows if row.kind == PART]
    assert all(1.9 < row.value < 2.9 for row in parts)


def test_the_sweep_shows_what_came_and_what_could_have(source: Source) -> None:
    rows = charts.sweep(source).rows
    assert [row.label for row in rows][2:5] == ["k = 3", "k = 4, the pair's", "k = 5"]
    for row in rows:
        assert row.value == pytest.approx(row.allowed, rel=0.02)
        assert row.cells[0] == f"{row.allowed:.2f}"


def test_equal_texts_are_held_against_noise(source: Source) -> None:
    with_mtp, noise = charts.equal_texts(source).rows
    assert with_mtp.value == pytest.approx(129 / 130)
    assert (noise.kind, noise.value, noise.n) == (NOISE, 1.0, 110)


def test_without_published_figures_nothing_has_a_floor(source: Source) -> None:
    unknown = replace(PROFILE, pair=replace(PROFILE.pair, name="nobody-has-measured-this"))
    bare = Source(source.evidence, unknown)
    for drawing in charts.DRAWINGS:
        chart = drawing.draw(bare)
        assert chart.rows or isinstance(chart, Timeline)
        assert isinstance(chart, Timeline) or not chart.has_floors


def test_a_cpu_that_multiplies_token_by_token_has_no_floor_of_speed(tmp_path: Path) -> None:
    documents = synthetic.healthy()
    documents["load"]["linear_fallback"] = "Failed to create oneDNN linear, fallback to torch linear."
    source = Source(Evidence(synthetic.record(tmp_path / "run", documents), recording=False), PROFILE)
    assert not charts.speedup(source).has_floors
    assert charts.joint_acceptance(source).has_floors


def test_later_looks_count_too(tmp_path: Path) -> None:
    documents = synthetic.healthy()
    folder = synthetic.record(tmp_path / "run", documents | {"load-2": documents["load"]})
    both = Source(Evidence(folder, recording=False), PROFILE)
    assert len(both.looks) == 2
    assert len(both.load.at(8).rounds) == 2 * synthetic.ROUNDS[8]


def test_speedups_as_served_stand_beside_the_measured_ones(source: Source) -> None:
    whole, *rows = charts.served(source).rows
    assert whole.figure == "speedup as people serve it"
    assert [row.label for row in rows[6:8]] == ["first token, 65 to 320", "measured"]
    assert rows[6].value == pytest.approx(2.7 * rows[7].value)
    assert "comes from graphs that vLLM captures only with drafts" in charts.served(source).caption


def test_a_cliff_is_drawn_and_named(tmp_path: Path) -> None:
    documents = synthetic.healthy()
    arm = documents["graph_steps"]["arms"]["mtp"]
    for row in arm["rates"]:
        row["tokens_per_second"] *= 0.6 if row["requests"] == 8 else 1
    drawn = charts.requests_at_once(Source(Evidence(synthetic.record(tmp_path / "run", documents), False), PROFILE))
    assert [line.label for line in drawn.lines[2:]] == ["tokens/s with MTP", "ms a step with MTP"]
    assert drawn.lines[2].points[7][1] < 0.7 * drawn.lines[2].points[6][1]
    assert drawn.caption.endswith("with MTP: 6228 tokens/s with 7 requests, but 4158 with 8, 33 % less")
