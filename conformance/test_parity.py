"""PARITY: the draft in vLLM computes the same as the draft in transformers."""

from __future__ import annotations

from collections.abc import Mapping

from conformance.judging.check import check
from conformance.judging.expectations import expect_close, expect_equal, expect_none
from conformance.profile.tolerances import Tolerances
from conformance.reference.numeric_error import Bound
from conformance.views.gold import NearTie
from conformance.views.parity import Parity


@check(
    "PARITY-01",
    level="qualify",
    severity="slow",
    response="change-release",
    oracle="independent",
    claim="First draft steps get the target's hidden state, later steps get the draft's, and the position is constant.",
)
def test_inputs(parity: Parity, numeric_bounds: Mapping[str, Bound], tolerances: Tolerances) -> None:
    """Compared with the target in transformers. The position is that of the last token that the target has seen."""
    unknown = parity.unrecognised_proposals(tolerances["parity_unrecognised"], tolerances["parity_past_the_end"])
    expect_none(unknown, among=parity.proposals, source=parity, note=parity.note())
    expect_equal(parity.step_inputs(), parity.expected_step_inputs(), source=parity, note=parity.note())
    expect_close(parity.inputs(), numeric_bounds, "hidden state of the target", source=parity)
    expect_close(parity.worst_inputs(), numeric_bounds, "worst hidden state of the target", source=parity)


@check(
    "PARITY-02",
    level="qualify",
    severity="slow",
    response="change-release",
    oracle="independent",
    claim="Each draft step gives the same output as the draft in transformers.",
)
def test_outputs(parity: Parity, numeric_bounds: Mapping[str, Bound], near_tie: NearTie) -> None:
    """Covers embedding, projections, attention to the target's keys and values, MLPs and head, alone and in a batch."""
    expect_close(parity.outputs(), numeric_bounds, "draft step", source=parity)
    expect_close(parity.worst_outputs(), numeric_bounds, "worst draft step", source=parity)
    expect_close(parity.logits(), numeric_bounds, "draft logits", source=parity)
    expect_none(parity.other_tokens(near_tie.nats), among=len(parity.rows), source=parity)
