"""GEOM: vLLM builds the drafts of all published pairs at their real sizes, whatever the target's quantisation."""

from __future__ import annotations

from conformance.judging.check import check
from conformance.judging.expectations import expect_all, expect_equal
from conformance.views.geometry import BUILT, Geometry

UNQUANTISED = ("UnquantizedLinearMethod", "UnquantizedEmbeddingMethod", "torch.nn.Linear")


@check("GEOM-01", level="static", claim="Every published draft is built at its real sizes.", upstream="vllm#41745")
def test_draft_sizes(geometry: Geometry) -> None:
    """Input and output of every linear layer, the embedding and the head; once the MLP had half its width."""
    expect_all(geometry.outcomes(), (BUILT,), source=geometry, note=geometry.left_out())
    expect_equal(geometry.sizes(), geometry.published_sizes(), source=geometry)


@check("GEOM-02", level="static", claim="Every published draft is built unquantised in BF16.", upstream="vllm#41745")
def test_drafts_are_unquantised(geometry: Geometry) -> None:
    """Under targets in BF16, FP8 and both layouts of NVFP4, whose settings once reached the draft and packed it."""
    expect_equal(geometry.weights(), geometry.plain_weights(), source=geometry, note=geometry.left_out())
    expect_all(geometry.dtypes(), ("bfloat16",), source=geometry)
    expect_all(geometry.methods(), UNQUANTISED, source=geometry)


@check("GEOM-03", level="static", claim="Built drafts expect the tensors of their checkpoint.", upstream="vllm#41745")
def test_draft_tensors(geometry: Geometry) -> None:
    """By name: none that the published file lacks, and none of the file without a place."""
    expect_equal(geometry.tensors(), geometry.published_tensors(), source=geometry, note=geometry.left_out())
