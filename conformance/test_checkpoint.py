"""CKPT: the two checkpoints are whole and belong together; read from their files alone."""

from __future__ import annotations

from conformance.harness.check import check, expect_equal, expect_none
from conformance.harness.views.static import Headers, Refusals


@check("CKPT-01", level="static", claim="The draft's file holds the tensors that its config implies, and no other.")
def test_draft_tensors(draft_checkpoint: Headers) -> None:
    """Names, dtypes and shapes."""
    expect_equal(draft_checkpoint.layout(), draft_checkpoint.implied_layout(), source=draft_checkpoint)


@check("CKPT-02", level="static", claim="Nothing in headers and configs forbids serving the pair together.")
def test_draft_matches_target(refusals: Refusals, draft_checkpoint: Headers) -> None:
    """Hidden size, vocabulary, window, and the keys and values that the draft reads from the target."""
    expect_none(refusals.sentences, among=len(draft_checkpoint.tensors), source=refusals)
