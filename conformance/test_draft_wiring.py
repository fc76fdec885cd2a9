"""DRAFT: the running draft is connected to its target as their configs say."""

from __future__ import annotations

from collections.abc import Mapping

from conformance.judging.check import check
from conformance.judging.expectations import expect_all, expect_close, expect_equal
from conformance.reference.numeric_error import Bound
from conformance.views.wiring import Attention, PairConfig, Wiring

SHARED_EMBEDDING = '"the draft uses the target\'s embedding"'


@check(
    "DRAFT-04",
    level="smoke",
    severity="slow",
    response="change-release",
    oracle="published",
    claim="The draft uses the target's embedding.",
    upstream="vllm#43957",
)
def test_draft_shares_the_embedding(wiring: Wiring) -> None:
    """It uses the same module, not a copy and not the draft's own narrow embedding."""
    expect_equal(wiring.fact("draft_embedding_is_targets"), True, source=wiring, what=SHARED_EMBEDDING)


@check(
    "DRAFT-05",
    level="smoke",
    severity="slow",
    response="change-release",
    oracle="independent",
    claim="The draft uses its own output head, which is as wide as the draft.",
)
def test_draft_has_its_own_head(wiring: Wiring, pair_config: PairConfig) -> None:
    """The head keeps the weight of the draft's own embedding, which the target's replaces everywhere else."""
    expect_equal(wiring.head(), pair_config.head(), source=wiring)


@check(
    "DRAFT-06",
    level="smoke",
    severity="slow",
    response="change-release",
    oracle="independent",
    claim="The draft scales its embedding by the square root of the target's width.",
)
def test_embedding_scale(wiring: Wiring, pair_config: PairConfig, numeric_bounds: Mapping[str, Bound]) -> None:
    """Acceptance does not show this: on a small pair the root of the draft's width changed no digit of it."""
    scale = wiring.embedding_scale(pair_config.embedding_scale())
    expect_close(scale, numeric_bounds, "constant", source=wiring)


@check(
    "DRAFT-07",
    level="smoke",
    severity="slow",
    response="change-release",
    oracle="independent",
    claim="Each draft layer reads the keys and values of the last target layer of its kind.",
    upstream="vllm#41745",
)
def test_draft_reads_the_right_layers(wiring: Wiring, pair_config: PairConfig) -> None:
    """Only target layers that own keys and values count."""
    expect_equal(wiring.kv_layers(), pair_config.kv_layers(), source=wiring, note=wiring.attention())


@check(
    "DRAFT-08",
    level="smoke",
    severity="slow",
    response="change-release",
    oracle="published",
    claim="All draft steps of a proposal use the same position.",
    upstream="vllm#47920",
)
def test_positions_are_constant(wiring: Wiring) -> None:
    """Every step predicts from the position of the last token that the target has seen."""
    expect_equal(wiring.fact("constant_draft_positions"), True, source=wiring, what='"draft positions are constant"')


@check(
    "DRAFT-09",
    level="smoke",
    severity="slow",
    response="change-release",
    oracle="self-consistent",
    no_better_oracle="No checkpoint holds KV scales for the draft; they are those of the layer that it reads.",
    claim="Each draft layer uses the KV scales of the target layer that it reads.",
    upstream="vllm#49262",
)
def test_kv_scales(wiring: Wiring) -> None:
    """With a calibrated FP8 cache, scales that stay at 1 cost half of the acceptance."""
    expect_equal(wiring.kv_scales("draft"), wiring.kv_scales("target"), source=wiring)


@check(
    "DRAFT-10",
    level="smoke",
    severity="slow",
    response="change-release",
    oracle="self-consistent",
    no_better_oracle="Only vLLM counts its drafts, and every ACC check relies on the count.",
    claim="The server drafts k tokens in each step and counts acceptance at every position from 0 to k - 1.",
)
def test_positions_are_counted(wiring: Wiring) -> None:
    """vLLM labels as many positions as it was told to draft; only an answer shows how many it really drafts."""
    expected = [str(position) for position in range(wiring.k)]
    expect_equal(list(wiring.metrics_positions), expected, source=wiring, what="positions in /metrics")
    if wiring.drafted is not None:
        expect_equal(wiring.tokens_per_draft(), wiring.k, source=wiring, what="tokens per draft")


@check(
    "DRAFT-11",
    level="smoke",
    severity="slow",
    response="correct-launch",
    oracle="published",
    claim="Draft and target use the attention backend expected on this hardware.",
    upstream="vllm#48082",
)
def test_attention_backend(attention: Attention) -> None:
    """A draft that chooses for itself may use another backend than the target whose keys and values it reads."""
    expect_all(attention.backends(), (attention.expected(),), source=attention)
