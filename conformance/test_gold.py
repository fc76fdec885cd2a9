"""GOLD: the server writes what transformers writes from the same weights in float32, up to near-ties."""

from __future__ import annotations

from conformance.harness.check import check, expect_at_least, expect_none
from conformance.harness.floors import Floors
from conformance.harness.views.gold import Gold, NearTie


@check("GOLD-01", level="qualify", claim="Greedy text without MTP is transformers' own, up to near-ties.")
def test_text_without_mtp(gold: Gold, near_tie: NearTie, floors: Floors) -> None:
    """What damages target and baseline alike shows here and in no comparison of the two."""
    expect_none(gold.departures("plain", near_tie.nats), among=gold.compared(), source=gold)
    expect_at_least(gold.followed("plain"), floors["gold_followed"], source=gold, what="share of gold tokens compared")


@check("GOLD-02", level="qualify", claim="Greedy text with MTP is transformers' own, up to near-ties.")
def test_text_with_mtp(gold: Gold, near_tie: NearTie, floors: Floors) -> None:
    """The same, through draft and rejection."""
    expect_none(gold.departures("mtp", near_tie.nats), among=gold.compared(), source=gold)
    expect_at_least(gold.followed("mtp"), floors["gold_followed"], source=gold, what="share of gold tokens compared")
