"""Defects that show only in what comes out: texts, samples, acceptance under load, or seconds.

No single module computes anything wrong, so no check of numbers or wiring can see them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from conformance.inside_vllm import adapters
from negative_controls.museum.undo import Undo, replaced

REJECTED = -1  # vLLM's mark for "no token here"
SLEEP_SECONDS = 0.012
# Share of drafted tokens replaced. The length falls from 1 + Σ a_i to 1 + Σ a_i (1 - r)^i; at the healthy 4.93 with
# k = 4 this r gives nine tenths of it, 4.43.
REPLACED_SHARE = 0.053
PADDED_SHARE = 0.1  # of the steps with several requests
SEED = 20261125


def _rejection_sampler() -> Any:
    from vllm.v1.sample import rejection_sampler  # only in the server

    return rejection_sampler


def temperature_reaches_every_token(_worker: Any) -> Undo:
    """Not a defect but a correction: on CPUs vLLM 0.32 never writes the temperatures that it divides by (vllm#55005).

    Other defects in sampling can only be distinguished with this correction.
    """

    def expand(each: Tensor, ends: Tensor, _: int, replace_from: float = 0, replace_to: float = 0) -> Tensor:
        counts = ends.diff(prepend=ends.new_zeros(1))
        return torch.where(each == replace_from, replace_to, each).repeat_interleave(counts)

    return replaced(_rejection_sampler(), "expand_batch_to_tokens", expand)


def accepts_everything(_worker: Any) -> Undo:
    """Every drafted token is accepted, even if the target does not agree, and the bonus token follows."""

    def accept(
        drafted: Tensor,
        counts: list[int],
        longest: int,
        _ends: Any,
        _probs: Any,
        _logits: Any,
        bonus: Tensor,
        *_: Any,
        **__: Any,
    ) -> Tensor:
        out = torch.full((len(counts), longest + 1), REJECTED, dtype=torch.int32)
        for row, tokens in enumerate(drafted.split(counts)):
            out[row, : len(tokens) + 1] = torch.cat([tokens, bonus[row]])
        return out

    return replaced(_rejection_sampler(), "rejection_sample", accept)


def resamples_wrongly(_worker: Any) -> Undo:
    """After a rejection the token is drawn from the target's whole distribution, which includes the rejected token."""
    right = _rejection_sampler().sample_recovered_tokens

    def wrong(
        longest: int, counts: list[int], ends: Tensor, drafted: Tensor, _: Any, target: Tensor, *rest: Any
    ) -> Any:
        return right(longest, counts, ends, drafted, torch.zeros_like(target), target, *rest)

    return replaced(_rejection_sampler(), "sample_recovered_tokens", wrong)


def resamples_the_runner_up(_worker: Any) -> Undo:
    """The same for greedy requests: if the draft is wrong, the target's second choice is written."""
    right = _rejection_sampler().rejection_sample

    def wrong(
        drafted: Tensor, counts: Any, longest: Any, ends: Any, probs: Any, logits: Tensor, *rest: Any, **named: Any
    ) -> Any:
        best = logits.argmax(-1)
        missed = (best != drafted).nonzero().flatten()
        logits[missed, best[missed]] = -torch.inf
        return right(drafted, counts, longest, ends, probs, logits, *rest, **named)

    return replaced(_rejection_sampler(), "rejection_sample", wrong)


def _of_the_row_before(metadata: Any) -> None:
    """Each request reads the keys and values of the request before it; a request alone reads its own."""
    metadata.block_table = metadata.block_table.roll(1, 0)


def target_reads_another_rows_kv(worker: Any) -> Undo:
    """With more than one request the target attends to another request's tokens; what it stores is right."""
    runner = worker.model_runner
    right = runner._build_attention_metadata

    def wrong(*arguments: Any, **named: Any) -> Any:
        by_layer, common = right(*arguments, **named)
        for metadata in {id(each): each for each in by_layer.values()}.values():  # layers share them
            _of_the_row_before(metadata)
        return by_layer, common

    return replaced(runner, "_build_attention_metadata", wrong)


def draft_reads_another_rows_kv(worker: Any) -> Undo:
    """The same for the draft's layers only: every text stays right, but fewer drafts are right."""
    drafter = adapters.drafter(worker)
    right = drafter.build_per_group_and_layer_attn_metadata

    def wrong(*arguments: Any, **named: Any) -> Any:
        by_group, by_layer = right(*arguments, **named)
        for metadata in by_group:
            _of_the_row_before(metadata)
        return by_group, by_layer

    return replaced(drafter, "build_per_group_and_layer_attn_metadata", wrong)


def slow_draft_step(worker: Any) -> Undo:
    """Every draft step takes 12 ms longer, or four times as long on a machine so slow that 12 ms would not show."""
    draft = adapters.draft_model(worker)
    right = draft.forward

    def slow(*arguments: Any, **named: Any) -> Any:
        begin = time.monotonic()
        drafted = right(*arguments, **named)
        time.sleep(max(SLEEP_SECONDS, 3 * (time.monotonic() - begin)))
        return drafted

    return replaced(draft, "forward", slow)  # not by a hook: vLLM's __call__ bypasses hooks


def draft_at_90_percent(worker: Any) -> Undo:
    """Some drafted tokens are replaced: the acceptance length falls to nine tenths of the healthy one."""
    drafter, generator = adapters.drafter(worker), torch.Generator().manual_seed(SEED)
    right = drafter.propose

    def wrong(*arguments: Any, **named: Any) -> Tensor:
        drafted: Tensor = right(*arguments, **named)
        hit = torch.rand(drafted.shape, generator=generator) < REPLACED_SHARE
        return torch.where(hit, drafted ^ 1, drafted)  # its neighbour in the vocabulary

    return replaced(drafter, "propose", wrong)


def draft_never_right(worker: Any) -> Undo:
    """Every drafted token is replaced by its neighbour in the vocabulary, so none is accepted (vllm#41789)."""
    drafter = adapters.drafter(worker)
    right = drafter.propose

    def wrong(*arguments: Any, **named: Any) -> Tensor:
        drafted: Tensor = right(*arguments, **named)
        return drafted ^ 1

    return replaced(drafter, "propose", wrong)


def padding_reaches_the_text(_worker: Any) -> Undo:
    """With several requests at once, now and then a verified token is overwritten by padding (vllm#39392)."""
    right, generator = _rejection_sampler().rejection_sample, torch.Generator().manual_seed(SEED)

    def padded(*given: Any, **named: Any) -> Tensor:
        out: Tensor = right(*given, **named)
        if out.shape[0] > 1 and torch.rand((), generator=generator) < PADDED_SHARE:
            out[0, 0] = 0
        return out

    return replaced(_rejection_sampler(), "rejection_sample", padded)


def accepted_counted_one_short(_worker: Any) -> Undo:
    """The counters in /metrics miss one accepted token of each draft; every text is right."""
    from vllm.v1.spec_decode.metrics import SpecDecodingStats

    right = SpecDecodingStats.observe_draft

    def short(self: Any, num_draft_tokens: int, num_accepted_tokens: int) -> None:
        right(self, num_draft_tokens, max(0, num_accepted_tokens - 1))

    return replaced(SpecDecodingStats, "observe_draft", short)


LOAD_EXHIBITS: dict[str, Callable[[Any], Undo]] = {
    each.__name__: each
    for each in (
        temperature_reaches_every_token,
        accepts_everything,
        resamples_wrongly,
        resamples_the_runner_up,
        target_reads_another_rows_kv,
        draft_reads_another_rows_kv,
        slow_draft_step,
        draft_at_90_percent,
        draft_never_right,
        padding_reaches_the_text,
        accepted_counted_one_short,
    )
}
