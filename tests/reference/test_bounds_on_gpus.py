"""Bounds that hold on a GPU only."""

from __future__ import annotations

from support.paths import ROOT

from conformance.reference.numeric_error import ON_GPUS, load_bounds

NUMERICS = ROOT / "fixtures" / "facts" / "numerics.toml"


def test_a_row_on_gpus_replaces_the_row_there_only() -> None:
    here, there = (load_bounds(NUMERICS, on_gpu=on_gpu) for on_gpu in (False, True))
    assert here.keys() == there.keys()
    assert not any(name.endswith(ON_GPUS) for name in here)
    assert {name for name in here if here[name] != there[name]} == {"worst draft step"}
    assert here["worst draft step"].relative_error < there["worst draft step"].relative_error
