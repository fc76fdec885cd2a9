"""The reference of single modules: experts decoded together, and the same numbers on another device."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from support.paths import ROOT

from conformance.errors import ObservationError
from conformance.observers import numerics
from conformance.profile.profile import load_profile
from conformance.reference import modules
from conformance.reference.modules import Weights

PAIR = ROOT / "fixtures" / "models" / "micro-26b-a4b"
LAYER = "model.layers.0."
# The same device by another name, so that the reference is computed twice as beside a GPU.
OTHER = "cpu:0"


@pytest.mark.parametrize("target", ["target-bf16", "target-nvfp4"])
def test_experts_that_are_decoded_together_are_those_decoded_one_by_one(target: str) -> None:
    held = Weights(PAIR / target)
    gate_up, down = held.experts(LAYER, 8)
    assert (gate_up.shape, down.shape) == ((8, 64, 128), (8, 128, 32))
    for expert in range(8) if target == "target-nvfp4" else ():
        parts = {part: held[f"{LAYER}experts.{expert}.{part}_proj.weight"] for part in ("gate", "up", "down")}
        assert gate_up[expert].equal(torch.cat((parts["gate"], parts["up"])))
        assert down[expert].equal(parts["down"])


def answer(layers: int = 2) -> dict[str, Any]:
    """What the probe of a perfect server says."""
    target = Weights(PAIR / "target-nvfp4")
    names = [f"model.layers.{number}" for number in range(layers)]
    told = {
        name: {
            "backend": "CPU",
            "router": modules.router(target, number, name),
            "experts": modules.experts(target, number, name),
        }
        for number, name in enumerate(names)
    }
    return {"vllm_version": "0", "draft_linears": None, "draft_mlps": None, "experts": told}


def compare(device: str) -> dict[str, Any]:
    return numerics.compare(answer(), PAIR / "target-nvfp4", PAIR / "draft", device)


def test_both_devices_give_the_same_reference() -> None:
    here, there = compare("cpu"), compare(OTHER)
    assert (here["reference"], there["reference"]) == ("cpu", OTHER)
    for name, row in there["experts"].items():
        assert np.allclose(row["expected"], here["experts"][name]["expected"])
        assert np.allclose(row["expected"], row["found"])


def test_a_device_that_computes_something_else_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = modules.experts

    def rounded(target: Weights, index: int, name: str) -> modules.Shown:
        shown = exact(target, index, name)
        coarse = str(target.device) == OTHER  # as a GPU with TF32 would
        return [[round(value, 2) for value in row] for row in shown] if coarse else shown

    monkeypatch.setattr(modules, "experts", rounded)
    with pytest.raises(ObservationError, match=r"the reference of model.layers.0 on cpu:0 is .* % off the one on the"):
        compare(OTHER)


def test_float32_is_multiplied_in_float32_and_the_setting_is_put_back() -> None:
    torch.set_float32_matmul_precision("high")
    try:
        with numerics.full_precision():
            assert torch.get_float32_matmul_precision() == "highest"
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_no_device_is_there_but_the_cpu() -> None:

    assert numerics.reference_device(load_profile("cpu", "micro-26b-a4b-nvfp4", "qualify")) == "cpu"
    if not torch.cuda.is_available():
        assert numerics.reference_device(load_profile("h200-small", "micro-26b-a4b-nvfp4", "qualify")) == "cpu"
