"""LOSS: MTP changes how fast a text comes, not what it says."""

from __future__ import annotations

from conformance.judging.check import check
from conformance.judging.expectations import expect_at_least, expect_none, expect_same_distribution, expect_within
from conformance.profile.tolerances import Tolerances
from conformance.reference.numeric_error import Likeness
from conformance.views.sampling import Sampling
from conformance.views.texts import Form, Texts


@check(
    "LOSS-01", level="qualify", claim="Greedy text with MTP differs from text without no more than that from itself."
)
def test_texts_are_equal(texts: Texts, tolerances: Tolerances) -> None:
    """Alone and at once; the server without MTP is held against itself first, again and in other batches."""
    itself = texts.of_itself(tolerances["self_comparisons"])
    floor = tolerances.floor("divergence_margin", itself.low, "share of equal texts")
    note = texts.note(tolerances["logit_resolution"], tolerances["widest_tie"])
    expect_at_least(texts.equal_share(with_mtp=True), floor, source=texts, note=note)


@check(
    "LOSS-02",
    level="qualify",
    claim="Greedy text with MTP leaves text without only at a near-tie.",
    upstream="vllm#54506",
)
def test_divergences_are_near_ties(texts: Texts, tolerances: Tolerances) -> None:
    """Near is as far as the server without MTP moves its own scores from batch to batch, within reason."""
    departures = texts.no_ties(tolerances["logit_resolution"], tolerances["widest_tie"])
    expect_none(departures, among=texts.compared[True], source=texts)


@check("LOSS-03", level="qualify", claim="Answers with MTP end, and go on, as those without.")
def test_form_of_answers(form: Form, tolerances: Tolerances) -> None:
    """Reason of the end, length, no padding token, no phrase over and over."""
    expect_none(form.objections(), among=len(form.pairs), source=form)
    expect_within(
        form.length_ratio(), 1.0, tolerances["length_ratio"], source=form, what="length with MTP over without"
    )


@check(
    "LOSS-04", level="qualify", claim="Sampled at temperature 1, the next tokens are distributed with MTP as without."
)
def test_samples_are_distributed_alike(sampling: Sampling, likeness: Likeness) -> None:
    """One healthy run in a thousand fails by chance: the alarm of fixtures/facts/sampling.toml."""
    found = sampling.homogeneity(likeness.alarm)
    expect_same_distribution(found, likeness, source=sampling, note=sampling.widest())
