"""LOSS: MTP changes the speed of the answers, not their text."""

from __future__ import annotations

from conformance.judging.check import check
from conformance.judging.expectations import (
    expect_at_least,
    expect_none,
    expect_none_sampled,
    expect_same_distribution,
    expect_within,
)
from conformance.profile.tolerances import Tolerances
from conformance.reference.numeric_error import Likeness
from conformance.views.sampling import Sampling
from conformance.views.texts import Form, Texts


@check(
    "LOSS-01",
    level="qualify",
    severity="wrong output",
    response="compare-answers",
    oracle="paired",
    claim="Greedy texts with and without MTP differ no more often than two runs without MTP do.",
)
def test_texts_are_equal(texts: Texts, tolerances: Tolerances) -> None:
    """Requests run alone and concurrently. The server without MTP is first compared with itself in other batches."""
    baseline = texts.share_without_mtp(tolerances["self_comparisons"])
    floor = tolerances.floor("divergence_margin", baseline.low, "share of equal texts")
    note = texts.note(tolerances["logit_resolution"], tolerances["widest_tie"])
    must_fail = baseline.value - tolerances["texts_changed"]
    expect_at_least(texts.equal_share(with_mtp=True), floor, source=texts, note=note, must_fail=must_fail)


@check(
    "LOSS-02",
    level="qualify",
    severity="wrong output",
    response="compare-answers",
    oracle="paired",
    claim="Greedy texts with and without MTP first differ only at near-ties.",
    upstream="vllm#54506",
)
def test_divergences_are_near_ties(texts: Texts, tolerances: Tolerances) -> None:
    """The limit of a near-tie is how far the server without MTP moves its own scores between batches, up to a cap."""
    wide = texts.wide_divergences(tolerances["logit_resolution"], tolerances["widest_tie"])
    expect_none_sampled(wide, among=texts.compared[True], source=texts, may_miss=tolerances["texts_changed"])


@check(
    "LOSS-03",
    level="qualify",
    severity="wrong output",
    response="compare-answers",
    oracle="paired",
    claim="Answers with MTP have the same endings and lengths as without, and contain no padding and no loops.",
)
def test_form_of_answers(form: Form, tolerances: Tolerances) -> None:
    """By finish reason, mean length, padding tokens and repeated phrases."""
    expect_none(form.objections(), among=len(form.pairs), source=form)
    expect_within(
        form.length_ratio(), 1.0, tolerances["length_ratio"], source=form, what="length with MTP over without"
    )


@check(
    "LOSS-04",
    level="qualify",
    severity="wrong output",
    response="compare-answers",
    oracle="paired",
    claim="At temperature 1 the next tokens follow the same distribution with and without MTP.",
)
def test_samples_are_distributed_alike(sampling: Sampling, likeness: Likeness) -> None:
    """One healthy run in a thousand fails by chance; fixtures/facts/sampling.toml sets this rate."""
    found = sampling.homogeneity(likeness.alarm)
    expect_same_distribution(found, likeness, source=sampling, note=sampling.largest_difference())
