"""CKPT: the two checkpoints are whole and belong together; read from their files alone."""

from __future__ import annotations

from conformance.judging.check import check
from conformance.judging.expectations import expect_equal, expect_none
from conformance.views.published import Published
from conformance.views.static import Headers, Refusals


@check("CKPT-01", level="static", claim="The draft's file holds the tensors that its config implies, and no other.")
def test_draft_tensors(draft_checkpoint: Headers) -> None:
    """Names, dtypes and shapes."""
    expect_equal(draft_checkpoint.layout(), draft_checkpoint.implied_layout(), source=draft_checkpoint)


@check("CKPT-02", level="static", claim="Nothing in headers and configs forbids serving the pair together.")
def test_draft_matches_target(refusals: Refusals, draft_checkpoint: Headers) -> None:
    """Hidden size, vocabulary, window, and the keys and values that the draft reads from the target."""
    expect_none(refusals.sentences, among=len(draft_checkpoint.tensors), source=refusals)


@check("CKPT-03", level="static", claim="The draft has no keys, values or head of its own, and orders all tokens.")
def test_draft_has_nothing_foreign(published: Published) -> None:
    """It reads the target's keys and values; its head is its embedding; an ordering lists every token once."""
    expect_none(published.foreign(), among=published.tensors_of_draft(), source=published)
    expect_none(published.token_order(), among=published.tensors_of_draft(), source=published)


@check("CKPT-04", level="static", claim="The draft's tensors and config are those known of its size.")
def test_draft_is_the_published_one(published: Published) -> None:
    """Every tensor's dtype and shape, the number of parameters, and the config."""
    expect_equal(published.draft_layout(), published.published_draft_layout(), source=published)


@check("CKPT-05", level="static", claim="The target's config and totals are those known of its size.")
def test_target_is_the_published_one(published: Published) -> None:
    """The config, and the totals of tensors, of parameters, or of quantised linears."""
    expect_equal(published.target_values(), published.published_target_values(), source=published)


@check("CKPT-06", level="static", claim="The target's quantisation settings fit its tensors.", upstream="vllm#41683")
def test_quantisation_fits_the_tensors(published: Published) -> None:
    """What is listed as left in BF16 is BF16, what is not is packed, and both config files say the same."""
    expect_none(published.quantisation(), among=published.tensors_of_target(), source=published)


@check("CKPT-07", level="static", claim="The target stops where an instruction-tuned Gemma 4 stops.")
def test_target_is_instruction_tuned(published: Published) -> None:
    """At the end of a turn and at a tool call, too; a base model does not."""
    expect_equal(published.endings(), published.published_endings(), source=published)


@check("CKPT-08", level="static", claim="Special tokens have Gemma 4's ids.")
def test_special_tokens(published: Published) -> None:
    """Those of tools, turns, thoughts and media, in the target's tokenizer and in the draft's."""
    expect_equal(published.special_tokens(), published.published_tokens(), source=published)


@check("CKPT-09", level="static", claim="The chat template is a generation of Gemma 4's.")
def test_chat_template(published: Published) -> None:
    """By its renders of golden conversations."""
    expect_equal(published.renders(), published.goldens(), source=published, note=published.generation())
