"""LOSS: MTP changes how fast a text comes, not what it says."""

from __future__ import annotations

from conformance.harness.check import check, expect_at_least, expect_same_distribution
from conformance.harness.closeness import Likeness
from conformance.harness.floors import Floors
from conformance.harness.views.answers import Texts
from conformance.harness.views.sampling import Sampling


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


@check(
    "LOSS-04", level="qualify", claim="Sampled at temperature 1, the next tokens are distributed with MTP as without."
)
def test_samples_are_distributed_alike(sampling: Sampling, likeness: Likeness) -> None:
    """One healthy run in a thousand fails by chance: the alarm of fixtures/facts/sampling.toml."""
    found = sampling.homogeneity(likeness.alarm)
    expect_same_distribution(found, likeness, source=sampling, note=sampling.widest())
