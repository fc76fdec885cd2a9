"""GOLD: the server writes the same text as transformers with the same weights in float32, except at near-ties."""

from __future__ import annotations

from conformance.judging.check import check
from conformance.judging.expectations import expect_at_least, expect_none_sampled
from conformance.profile.tolerances import Tolerances
from conformance.views.gold import Gold, NearTie

COMPARED = "share of gold tokens compared"


@check(
    "GOLD-01",
    level="qualify",
    severity="wrong output",
    response="change-kernel",
    oracle="independent",
    claim="Greedy text without MTP equals the text of transformers, except at near-ties.",
)
def test_text_without_mtp(gold: Gold, near_tie: NearTie, tolerances: Tolerances) -> None:
    """A defect of the servers with and without MTP alike shows here, but in no comparison of the two."""
    expect_none_sampled(gold.divergences("plain", near_tie.nats), among=gold.answer_count(), source=gold)
    expect_at_least(gold.share_compared("plain"), tolerances.floor("gold_uncompared", 1.0, COMPARED), source=gold)


@check(
    "GOLD-02",
    level="qualify",
    severity="wrong output",
    response="compare-answers",
    oracle="independent",
    claim="Greedy text with MTP equals the text of transformers, except at near-ties.",
)
def test_text_with_mtp(gold: Gold, near_tie: NearTie, tolerances: Tolerances) -> None:
    """The same comparison for text that was drafted and verified."""
    expect_none_sampled(gold.divergences("mtp", near_tie.nats), among=gold.answer_count(), source=gold)
    expect_at_least(gold.share_compared("mtp"), tolerances.floor("gold_uncompared", 1.0, COMPARED), source=gold)
