"""CKPT: the two checkpoints are complete and fit together, according to their files alone."""

from __future__ import annotations

from conformance.judging.check import check
from conformance.judging.expectations import expect_equal, expect_none
from conformance.views.published import Published
from conformance.views.static import Headers, Refusals


@check(
    "CKPT-01",
    level="static",
    severity="wrong output",
    response="fetch-checkpoint",
    oracle="independent",
    claim="The draft's file holds exactly the tensors that its config implies.",
)
def test_draft_tensors(draft_checkpoint: Headers) -> None:
    """By name, dtype and shape."""
    expect_equal(draft_checkpoint.layout(), draft_checkpoint.implied_layout(), source=draft_checkpoint)


@check(
    "CKPT-02",
    level="static",
    severity="blocks serving",
    response="fetch-checkpoint",
    oracle="independent",
    claim="The headers and configs of draft and target are compatible.",
)
def test_draft_matches_target(refusals: Refusals, draft_checkpoint: Headers) -> None:
    """In hidden size, vocabulary, window, and the keys and values that the draft reads from the target."""
    expect_none(refusals.sentences, among=len(draft_checkpoint.tensors), source=refusals)


@check(
    "CKPT-03",
    level="static",
    severity="wrong output",
    response="fetch-checkpoint",
    oracle="independent",
    claim="The draft has no keys, values or head of its own, and its token ordering lists every token once.",
)
def test_draft_has_no_foreign_tensors(published: Published) -> None:
    """The draft reads the target's keys and values, and its head shares the weight of its embedding."""
    expect_none(published.foreign_tensors(), among=published.tensors_of_draft(), source=published)
    expect_none(published.token_order(), among=published.tensors_of_draft(), source=published)


@check(
    "CKPT-04",
    level="static",
    severity="wrong output",
    response="fetch-checkpoint",
    oracle="published",
    claim="The draft's tensors and config match the published draft of its size.",
)
def test_draft_is_the_published_one(published: Published) -> None:
    """By the dtype and shape of every tensor, the number of parameters, and the config."""
    expect_equal(published.draft_layout(), published.published_draft_layout(), source=published)


@check(
    "CKPT-05",
    level="static",
    severity="wrong output",
    response="fetch-checkpoint",
    oracle="published",
    claim="The target's config and tensor totals match the published target of its size.",
)
def test_target_is_the_published_one(published: Published) -> None:
    """By the config, and the number of tensors, of parameters, or of quantised linear layers."""
    values, expected = published.target_values(), published.published_target_values()
    expect_equal(values, expected, source=published, note=published.absent_tensors())


@check(
    "CKPT-06",
    level="static",
    severity="wrong output",
    response="fetch-checkpoint",
    oracle="independent",
    claim="The target's quantisation settings match its tensors.",
    upstream="vllm#41683",
)
def test_quantisation_fits_the_tensors(published: Published) -> None:
    """The listed layers are BF16, all others are packed, and both config files agree."""
    found = published.quantisation()
    expect_none(found, among=published.tensors_of_target(), source=published, note=published.integers())


@check(
    "CKPT-07",
    level="static",
    severity="wrong output",
    response="fetch-checkpoint",
    oracle="published",
    claim="The target's stop tokens are those of an instruction-tuned Gemma 4.",
)
def test_target_is_instruction_tuned(published: Published) -> None:
    """An instruction-tuned model also stops at the end of a turn and at a tool call; a base model does not."""
    expect_equal(published.endings(), published.published_endings(), source=published)


@check(
    "CKPT-08",
    level="static",
    severity="wrong output",
    response="fetch-checkpoint",
    oracle="published",
    claim="The special tokens have the ids that Gemma 4 gives them.",
)
def test_special_tokens(published: Published) -> None:
    """The tokens of tools, turns, thoughts and media, in both tokenizers."""
    expect_equal(published.special_tokens(), published.published_tokens(), source=published)


@check(
    "CKPT-09",
    level="static",
    severity="wrong output",
    response="fetch-checkpoint",
    oracle="published",
    claim="The chat template renders like a published version of Gemma 4's template.",
)
def test_chat_template(published: Published) -> None:
    """Compared by the renders of golden conversations."""
    expect_equal(published.renders(), published.goldens(), source=published, note=published.generation())
