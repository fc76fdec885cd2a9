"""ARM: the server with MTP and the one without are alike in all but MTP, so that a speedup is MTP's alone."""

from __future__ import annotations

from conformance.judging.check import check
from conformance.judging.expectations import expect_at_most, expect_none
from conformance.views.first_token import FirstTokens
from conformance.views.resolved_config import ResolvedConfig
from conformance.views.steps.step_time import StepTime


@check(
    "ARM-01",
    level="qualify",
    severity="informational",
    response="correct-launch",
    oracle="paired",
    claim="The servers with and without MTP differ in nothing that changes their speed, except MTP.",
)
def test_arms_are_alike(resolved_config: ResolvedConfig) -> None:
    """By every field of the configuration that vLLM arrived at. An undeclared difference fails too."""
    found = resolved_config
    expect_none(found.objections(), among=len(found.fields), source=found, note=found.note())


@check(
    "ARM-02",
    level="qualify",
    severity="informational",
    response="measure-again",
    oracle="paired",
    claim="MTP does not shorten the time to the first token, at any prompt length.",
)
def test_first_token_is_no_earlier(first_tokens: FirstTokens) -> None:
    """Until its first token a server without MTP does strictly less. If MTP is faster there, the arms are not alike."""
    for label, found in first_tokens.estimates.items():
        what = f"the time to the first token without MTP over that with it, for {label} prompt tokens,"
        seen, note = first_tokens, first_tokens.note
        expect_at_most(
            found, seen.missed, alarm=seen.alarm, source=seen, what=what, note=note, suspected=seen.suspected
        )


@check(
    "ARM-03",
    level="qualify",
    severity="informational",
    response="measure-again",
    oracle="paired",
    claim="A step with drafts is no faster than a step without.",
)
def test_step_is_no_faster(step_time: StepTime) -> None:
    """A step with drafts verifies and drafts more tokens. If it is faster, the arms are not alike."""
    seen, what = step_time, "the time of a step without drafts over that of one with"
    expect_at_most(
        seen.estimate,
        seen.missed,
        alarm=seen.alarm,
        source=seen,
        what=what,
        note=seen.note,
        suspected=seen.suspected,
    )
