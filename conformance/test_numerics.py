"""NUM: the modules in use compute correct outputs from their weights, whichever kernel serves them."""

from __future__ import annotations

from collections.abc import Mapping

from conformance.judging.check import check
from conformance.judging.expectations import expect_close
from conformance.reference.numeric_error import Bound
from conformance.views.numerics import Numerics


@check(
    "NUM-01",
    level="smoke",
    severity="wrong output",
    response="change-kernel",
    oracle="independent",
    claim="The routed experts' outputs match a float32 reference made from their checkpoint.",
    upstream="vllm#37030",
)
def test_experts(numerics: Numerics, numeric_bounds: Mapping[str, Bound]) -> None:
    """Every expert serves some of the inputs, so a single expert that returns zeros is detected."""
    expect_close(numerics.routers(), numeric_bounds, "router", source=numerics)
    expect_close(numerics.experts(), numeric_bounds, f"experts on {numerics.backend()}", source=numerics)


@check(
    "NUM-02",
    level="smoke",
    severity="slow",
    response="change-release",
    oracle="independent",
    claim="The outputs of the draft's linear layers and MLPs match a float32 reference made from their checkpoint.",
)
def test_draft(numerics: Numerics, numeric_bounds: Mapping[str, Bound]) -> None:
    """Acceptance does not show a wrong activation, or a matrix that is off by a few per cent."""
    expect_close(numerics.draft_linears(), numeric_bounds, "linear", source=numerics)
    expect_close(numerics.draft_mlps(), numeric_bounds, "mlp", source=numerics)
