"""NUM: the modules in use compute what their weights say, whichever kernel serves them."""

from __future__ import annotations

from collections.abc import Mapping

from conformance.judging.check import check
from conformance.judging.expectations import expect_close
from conformance.reference.numeric_error import Bound
from conformance.views.numerics import Numerics


@check("NUM-01", level="smoke", claim="The routed experts compute what their checkpoint says.", upstream="vllm#37030")
def test_experts(numerics: Numerics, numeric_bounds: Mapping[str, Bound]) -> None:
    """Every expert serves some of the inputs, so that one that returns zeros shows."""
    expect_close(numerics.routers(), numeric_bounds, "router", source=numerics)
    expect_close(numerics.experts(), numeric_bounds, f"experts on {numerics.backend()}", source=numerics)


@check("NUM-02", level="smoke", claim="The draft's linears and MLPs compute what their checkpoint says.")
def test_draft(numerics: Numerics, numeric_bounds: Mapping[str, Bound]) -> None:
    """A wrong activation, or a matrix some per cent off, leaves the acceptance as it was."""
    expect_close(numerics.draft_linears(), numeric_bounds, "linear", source=numerics)
    expect_close(numerics.draft_mlps(), numeric_bounds, "mlp", source=numerics)
