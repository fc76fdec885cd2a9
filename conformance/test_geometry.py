"""GEOM: vLLM builds the drafts of all published pairs at their real sizes, with every target quantisation."""

from __future__ import annotations

from conformance.judging.check import check
from conformance.judging.expectations import expect_all, expect_equal
from conformance.views.geometry import BUILT, Geometry

UNQUANTISED = ("UnquantizedLinearMethod", "UnquantizedEmbeddingMethod", "torch.nn.Linear")


@check(
    "GEOM-01",
    level="static",
    severity="blocks serving",
    response="change-release",
    oracle="published",
    claim="vLLM builds every published draft at its real sizes.",
    upstream="vllm#41745",
)
def test_draft_sizes(geometry: Geometry) -> None:
    """Input and output sizes of every linear layer, the embedding and the head. The MLP once had half its width."""
    expect_all(geometry.outcomes(), (BUILT,), source=geometry, note=geometry.left_out())
    expect_equal(geometry.sizes(), geometry.published_sizes(), source=geometry)


@check(
    "GEOM-02",
    level="static",
    severity="blocks serving",
    response="change-release",
    oracle="published",
    claim="vLLM builds every published draft unquantised in BF16.",
    upstream="vllm#41745",
)
def test_drafts_are_unquantised(geometry: Geometry) -> None:
    """With targets in BF16, FP8 and both layouts of NVFP4. An early vLLM applied their settings to the draft."""
    expect_equal(geometry.weights(), geometry.plain_weights(), source=geometry, note=geometry.left_out())
    expect_all(geometry.dtypes(), ("bfloat16",), source=geometry)
    expect_all(geometry.methods(), UNQUANTISED, source=geometry)


@check(
    "GEOM-03",
    level="static",
    severity="blocks serving",
    response="change-release",
    oracle="published",
    claim="Every draft that vLLM builds expects exactly the tensors of its published checkpoint.",
    upstream="vllm#41745",
)
def test_draft_tensors(geometry: Geometry) -> None:
    """By name: the published file holds every expected tensor, and the model expects every tensor of the file."""
    expect_equal(geometry.tensors(), geometry.published_tensors(), source=geometry, note=geometry.left_out())
