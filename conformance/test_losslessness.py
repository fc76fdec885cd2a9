"""LOSS: MTP changes how fast a text comes, not what it says."""

from __future__ import annotations

from conformance.harness.check import check, expect_at_least
from conformance.harness.floors import Floors
from conformance.harness.views.answers import Texts


@check("LOSS-01", level="qualify", claim="Greedy text with MTP equals text without on the floor's share of prompts.")
def test_texts_are_equal(texts: Texts, floors: Floors) -> None:
    """At a floor of 0.95 at least 72 prompts are needed if all are equal, 110 if one is not."""
    expect_at_least(
        texts.equal_share(),
        floors["text_equal"],
        source=texts,
        what="share of equal texts",
        note=texts.different(),
    )
