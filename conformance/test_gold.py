"""GOLD: the server writes what transformers writes from the same weights in float32, up to near-ties."""

from __future__ import annotations

from conformance.judging.check import check
from conformance.judging.expectations import expect_at_least, expect_none
from conformance.profile.tolerances import Tolerances
from conformance.views.gold import Gold, NearTie

FOLLOWED = "share of gold tokens compared"


@check("GOLD-01", level="qualify", claim="Greedy text without MTP is transformers' own, up to near-ties.")
def test_text_without_mtp(gold: Gold, near_tie: NearTie, tolerances: Tolerances) -> None:
    """What damages target and baseline alike shows here and in no comparison of the two."""
    expect_none(gold.departures("plain", near_tie.nats), among=gold.compared(), source=gold)
    expect_at_least(gold.followed("plain"), tolerances.floor("gold_uncompared", 1.0, FOLLOWED), source=gold)


@check("GOLD-02", level="qualify", claim="Greedy text with MTP is transformers' own, up to near-ties.")
def test_text_with_mtp(gold: Gold, near_tie: NearTie, tolerances: Tolerances) -> None:
    """The same, through draft and rejection."""
    expect_none(gold.departures("mtp", near_tie.nats), among=gold.compared(), source=gold)
    expect_at_least(gold.followed("mtp"), tolerances.floor("gold_uncompared", 1.0, FOLLOWED), source=gold)
