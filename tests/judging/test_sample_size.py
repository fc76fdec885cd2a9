"""The plan before a run: how many samples a floor needs, what a level takes, and that nothing is started for it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from conformance import FIXTURES, PACKAGE
from conformance.commands.main import main
from conformance.errors import UsageError
from conformance.judging import sample_size, stats
from conformance.judging.sample_size import SAMPLINGS, needed_for
from conformance.judging.stats import CONFIDENCE, MINIMUM_CLUSTERS, look_confidence
from conformance.profile.floors import Floor, load_floors
from conformance.profile.profile import Sizes

LENGTH = Floor("acceptance length", 3.68, 1.0, 2, "somewhere", "2026", True, 4.0, 0.5, 0.0, 0.5)
SIZES = Sizes(mixed_prompts=60, rounds={"1": 20, "8": 11}, looks=2)
EMBEDDED = FIXTURES / "floors" / "micro-26b-a4b-nvfp4.toml"
ON_CPUS = FIXTURES / "floors" / "cpu.micro-26b-a4b-nvfp4.toml"


@pytest.mark.parametrize(("expected", "spread"), [(2.7, 0.25), (2.5, 0.2)])
def test_so_many_prompts_pass_with_the_power_that_was_asked_for(expected: float, spread: float) -> None:
    rng, trials = np.random.default_rng(6), 1000
    floor = replace(LENGTH, value=2.34, expected=expected, spread=spread)
    n = needed_for(floor, SAMPLINGS["speedup_sequential"], CONFIDENCE)
    assert n is not None
    ratios = expected * np.exp(rng.normal(0, spread, (trials, n)))
    passed = sum(stats.speedup(list(row), [1.0] * n).low >= 2.34 for row in ratios)
    assert passed / trials == pytest.approx(0.95, abs=0.025)


def test_noisier_rounds_need_more() -> None:
    floor = replace(LENGTH, value=1.91, expected=2.69, spread=0.06)
    few, many = (needed_for(replace(floor, spread=s), SAMPLINGS["speedup_concurrent"], CONFIDENCE) for s in (0.06, 0.5))
    assert few is not None
    assert many is not None
    assert few < 5 < many


@pytest.mark.parametrize("change", [{"expected": None}, {"spread": None}, {"expected": 3.6}, {"spread": 500.0}])
def test_what_cannot_be_computed_or_reached_has_no_n(change: dict[str, float | None]) -> None:
    assert needed_for(replace(LENGTH, **change), SAMPLINGS["acceptance_length"], CONFIDENCE) is None


@pytest.mark.parametrize("spread", [0.0, 0.001])
def test_an_interval_has_its_minimum_of_prompts(spread: float) -> None:
    assert needed_for(replace(LENGTH, spread=spread), SAMPLINGS["acceptance_length"], CONFIDENCE) == MINIMUM_CLUSTERS


def test_several_looks_need_more() -> None:
    once, twice = (needed_for(LENGTH, SAMPLINGS["acceptance_length"], look_confidence(n)) for n in (1, 2))
    assert once is not None
    assert twice is not None
    assert once < twice


def test_a_line_says_what_is_needed_and_what_the_level_takes(tmp_path: Path) -> None:
    spoilt = re.sub(r"(expected = 2.7\nspread = )0.05", r"\g<1>1.5", ON_CPUS.read_text())
    spoilt = re.sub(r"(?m)^(expected = 2.69|spread = 0.06|planned_from.*)\n", "", spoilt)
    (tmp_path / ON_CPUS.name).write_text(spoilt)
    (tmp_path / EMBEDDED.name).write_text(EMBEDDED.read_text())
    text = sample_size.as_text(
        sample_size.plan(load_floors(tmp_path, "cpu", "micro-26b-a4b-nvfp4", 4), SIZES), SIZES.looks
    )
    assert "acceptance length: floor 3.68, expected 4.91 (spread 0.32): needs 10 prompts, the level takes 60, " in text
    assert "acceptance per position 4: floor 0.51" in text
    assert re.search(r"speedup sequential: .* needs \d{4} prompts, the level takes 60 TOO FEW, about \d+ s", text)
    assert (
        "speedup concurrent: floor 1.91: no planning figure, so n cannot be computed; the level takes 11 rounds" in text
    )
    assert re.search(r"in all about \d+ s for the first look, \d+ s if all 2 are needed", text)


def test_a_plan_starts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["--plan"]) == main(["qualify", "--plan"]) == pytest.main(["--plan", str(PACKAGE)]) == 0
    texts = capfd.readouterr().out.split("micro-26b-a4b-nvfp4 on cpu")[1:]
    assert len(texts) == 3
    assert len(set(texts)) == 1
    assert list(tmp_path.iterdir()) == []
    assert main(["--plan", "--level", "smoke"]) == 0
    assert capfd.readouterr().out.endswith("level smoke judges no floor\n")
    assert main(["--plan", "--hardware", "nowhere"]) == 2


def test_a_plan_for_programs_says_the_same(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--plan", "--hardware", "cpu", "--json"]) == 0
    plan = json.loads(capfd.readouterr().out)
    about = {"hardware": "cpu", "pair": "micro-26b-a4b-nvfp4", "level": "qualify", "environment": "cpu", "k": 4}
    assert about.items() <= plan.items()
    assert (plan["two_servers"], plan["memory"], plan["usable_gb"]) == (True, "host", None)
    length = next(row for row in plan["floors"] if row["name"] == "acceptance length")
    assert (length["floor"], length["needed"], length["taken"], length["samples"]) == (3.68, 10, 160, "prompts")
    assert plan["first_look_seconds"] > 0
    assert main(["--plan", "--hardware", "gb10", "--pair", "gemma-4-26b-a4b-nvfp4", "--json"]) == 0
    plan = json.loads(capfd.readouterr().out)
    assert (plan["weights_gb"], plan["usable_gb"]) == (19.6, pytest.approx(70.4))
    bounds = [(row["name"], row["floor"]) for row in plan["floors"] if "position" not in row["name"]]
    assert [name for name, _ in bounds] == ["acceptance length", "speedup sequential", "speedup concurrent"]
    assert [bound for _, bound in bounds] == pytest.approx([2.79, 1.006, 1.012], abs=0.001)


def test_every_floor_that_is_expected_says_from_where() -> None:
    for path in (FIXTURES / "floors").glob("*.toml"):
        hardware, _, pair = path.stem.rpartition(".")
        floors = load_floors(path.parent, hardware, pair, k=4)
        for floor in (each for name in floors.rows for each in floors.each(name)):
            assert (floor.expected is None) == (floor.planned_from == "")


def test_as_many_values_are_expected_as_there_are_floors(tmp_path: Path) -> None:
    (tmp_path / EMBEDDED.name).write_text(EMBEDDED.read_text().replace("[0.991, 0.976, ", "["))
    with pytest.raises(UsageError, match=r'"acceptance_per_position.expected" must be as long as'):
        load_floors(tmp_path, "cpu", "micro-26b-a4b-nvfp4", 4)
