"""DRAFT: the running draft hangs together with its target as their configs say."""

from __future__ import annotations

from collections.abc import Mapping

from conformance.judging.check import check
from conformance.judging.expectations import expect_all, expect_close, expect_equal
from conformance.reference.numeric_error import Bound
from conformance.views.wiring import Attention, PairConfig, Wiring


@check("DRAFT-04", level="smoke", claim="The draft embeds with the target's own embedding.", upstream="vllm#43957")
def test_draft_shares_the_embedding(wiring: Wiring) -> None:
    """The same module, not a copy and not the draft's narrow table."""
    expect_equal(wiring.fact("draft_embedding_is_targets"), True, source=wiring, what="the embedding is the target's")


@check("DRAFT-05", level="smoke", claim="The draft's head is its own, as wide as the draft.")
def test_draft_has_its_own_head(wiring: Wiring, pair_config: PairConfig) -> None:
    """Tied to the draft's embedding, which the target's replaces everywhere else."""
    expect_equal(wiring.head(), pair_config.head(), source=wiring)


@check("DRAFT-06", level="smoke", claim="The draft's embedding is scaled by the root of the target's width.")
def test_embedding_scale(wiring: Wiring, pair_config: PairConfig, numeric_bounds: Mapping[str, Bound]) -> None:
    """Acceptance does not see it: on a small pair the root of the draft's width changed no digit of it."""
    scale = wiring.embedding_scale(pair_config.embedding_scale())
    expect_close(scale, numeric_bounds, "constant", source=wiring)


@check(
    "DRAFT-07", level="smoke", claim="Each draft layer reads the last target layer of its kind.", upstream="vllm#41745"
)
def test_draft_reads_the_right_layers(wiring: Wiring, pair_config: PairConfig) -> None:
    """The last one that owns keys and values."""
    expect_equal(wiring.kv_layers(), pair_config.kv_layers(), source=wiring, note=wiring.attention())


@check("DRAFT-08", level="smoke", claim="Positions stand still over the draft steps.", upstream="vllm#47920")
def test_positions_stand_still(wiring: Wiring) -> None:
    """Every step predicts from the last token that the target has seen."""
    expect_equal(wiring.fact("constant_draft_positions"), True, source=wiring, what="constant draft positions")


@check(
    "DRAFT-09", level="smoke", claim="Each draft layer has the KV scales of its target layer.", upstream="vllm#49262"
)
def test_kv_scales(wiring: Wiring) -> None:
    """With a calibrated FP8 cache, scales that stay 1 cost half of the acceptance."""
    expect_equal(wiring.kv_scales("draft"), wiring.kv_scales("target"), source=wiring)


@check("DRAFT-10", level="smoke", claim="The server drafts k tokens a step and counts every position, 0 to k - 1.")
def test_positions_are_counted(wiring: Wiring) -> None:
    """vLLM labels as many positions as it was told to draft; how many it does draft shows in an answer."""
    expected = [str(position) for position in range(wiring.k)]
    expect_equal(list(wiring.metrics_positions), expected, source=wiring, what="positions in /metrics")
    if wiring.drafted is not None:
        expect_equal(wiring.drafted_a_step(), wiring.k, source=wiring, what="tokens drafted a step")


@check("DRAFT-11", level="smoke", claim="Draft and target attend by the backend expected here.", upstream="vllm#48082")
def test_attention_backend(attention: Attention) -> None:
    """A draft that is left to choose for itself takes another one than its target, whose keys and values it reads."""
    expect_all(attention.backends(), (attention.expected(),), source=attention)
