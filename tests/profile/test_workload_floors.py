"""Floors of acceptance on kinds of prompts: which apply to a pair and its k, and how categories join workloads."""

from __future__ import annotations

from pathlib import Path

import pytest

from conformance import FIXTURES
from conformance.errors import UsageError
from conformance.profile.profile import load_pair
from conformance.profile.workload_floors import EACH, is_of, kinds, load_workload_floors

FOLDER = FIXTURES / "workloads"


@pytest.mark.parametrize(("name", "bound"), [("mt-bench", 2.166), ("humaneval", 2.546), ("gsm8k", 2.472)])
def test_vllms_own_figures_are_floors_for_its_pair_and_k_alone(name: str, bound: float) -> None:
    assert load_workload_floors(FOLDER, "gemma-4-e4b", 2)[name].bound == pytest.approx(bound, abs=0.001)
    for pair, k in (("gemma-4-e4b", 4), ("gemma-4-e2b", 2), ("gemma-4-31b-bf16", 2)):
        floor = load_workload_floors(FOLDER, pair, k)[name]
        assert floor.bound is None
        assert floor.reason == f"no figure of this pair is known for {name} at k = {k}"


def test_a_whole_workload_has_a_floor_that_its_categories_lack() -> None:
    floors = load_workload_floors(FOLDER, "gemma-4-e4b", 2)
    assert floors["mt-bench"].name == "acceptance length on mt-bench"
    assert floors["mt-bench/writing"].bound is None


def test_every_category_of_the_embedded_pair_has_the_same_floor() -> None:
    floors = load_workload_floors(FOLDER, "micro-26b-a4b-nvfp4", 4)
    assert floors["code"].bound == floors["json"].bound == pytest.approx(2.79)
    assert floors["code"].name == "acceptance length on code"


def test_every_file_belongs_to_a_pair_and_says_where_its_figures_are_from() -> None:
    for path in FOLDER.glob("*.toml"):
        pair = load_pair(FIXTURES / "models" / path.name)
        every = {row for k in range(1, 16) for row in load_workload_floors(FOLDER, pair.name, k).rows.values()}
        assert every
        assert all(row.source and row.date and row.value and row.value > 1 for row in every)


def test_a_wrong_file_is_named_with_its_key(tmp_path: Path) -> None:
    (tmp_path / "pair.toml").write_text(
        '[gsm8k]\nvalue = 2.0\nk = "two"\nfactor = 1.0\nn = 1\nsource = ""\ndate = ""\n'
    )
    with pytest.raises(UsageError, match=r'pair.toml: key "gsm8k.k"'):
        load_workload_floors(tmp_path, "pair", 2)


def test_parts_belong_to_their_workload() -> None:
    assert kinds(["mt-bench/writing", "mt-bench/math", "gsm8k", "gsm8k"]) == [
        *("gsm8k", "mt-bench", "mt-bench/math", "mt-bench/writing"),
    ]
    assert is_of("mt-bench/math", "mt-bench")
    assert is_of("gsm8k", "gsm8k")
    assert not is_of("gsm8k-hard", "gsm8k")
    assert EACH not in kinds(["code"])
