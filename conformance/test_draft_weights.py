"""DRAFT: vLLM loads the draft as its checkpoint holds it, whatever the target's quantisation is."""

from __future__ import annotations

from conformance.judging.check import check
from conformance.judging.expectations import expect_all, expect_equal
from conformance.views.inside import DraftLoad
from conformance.views.static import Headers

UNQUANTISED = ("UnquantizedLinearMethod", "UnquantizedEmbeddingMethod")


@check(
    "DRAFT-01",
    level="smoke",
    severity="slow",
    response="change-release",
    oracle="independent",
    claim="The draft's MLP is as wide as its checkpoint says.",
    upstream="vllm#41745",
)
def test_draft_mlp_sizes(draft_load: DraftLoad, draft_checkpoint: Headers) -> None:
    """The first version of the pull request built the MLP at half its width."""
    expect_equal(draft_load.shapes("mlp"), draft_checkpoint.shapes("mlp"), source=draft_load)


@check(
    "DRAFT-02",
    level="smoke",
    severity="slow",
    response="change-release",
    oracle="published",
    claim="The draft is BF16 and unquantised in the server.",
    upstream="vllm#41745",
)
def test_draft_is_unquantised(draft_load: DraftLoad) -> None:
    """An early vLLM applied the target's quantisation settings to the draft's linear layers."""
    expect_all(draft_load.dtypes(), ("bfloat16",), source=draft_load)
    expect_all(draft_load.methods(), UNQUANTISED, source=draft_load)


@check(
    "DRAFT-03",
    level="smoke",
    severity="slow",
    response="change-release",
    oracle="independent",
    claim="The draft's weights equal those of its checkpoint byte for byte.",
)
def test_draft_bytes(draft_load: DraftLoad, draft_checkpoint: Headers) -> None:
    """A tensor that was never loaded has the right shape but the wrong bytes."""
    expected = draft_checkpoint.digests(draft_load.shared_out())
    expect_equal(draft_load.digests(draft_checkpoint.tensors), expected, source=draft_load)
