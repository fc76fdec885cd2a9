"""A probe that can also break its server and repair it again, so that one running server shows many exhibits."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from conformance.inside_vllm import adapters
from conformance.inside_vllm.probe import Probe
from negative_controls.museum.features import FEATURE_EXHIBITS
from negative_controls.museum.load import LOAD_EXHIBITS
from negative_controls.museum.undo import Undo, replaced

LAYER, EXPERT = 14, 3  # where an expert is broken
EVERY_TOKEN = -1  # 32 tokens of a mask, all allowed


class SiluAndMul(nn.Module):
    """Gate through SiLU times up; [..., 2 d] to [..., d]."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate, up = x.chunk(2, -1)
        return nn.functional.silu(gate) * up


def embedding_not_shared(worker: Any) -> Undo:
    """The draft embeds with a copy, as after vllm#43957."""
    model = adapters.draft_model(worker).model
    return replaced(model, "embed_tokens", copy.deepcopy(model.embed_tokens))


def kv_of_the_first_layer(worker: Any) -> Undo:
    """Every draft layer reads the first target layer of its type, not the last."""
    layers = adapters.attention_layers(worker)
    undo: list[Undo] = []
    for layer in adapters.draft_model(worker).model.layers:
        attention = layer.self_attn.attn
        right = layers[attention.kv_sharing_target_layer_name]
        name = next(n for n, other in layers.items() if other.head_size == right.head_size)
        undo += [
            replaced(attention, "kv_sharing_target_layer_name", name),
            replaced(attention, "kv_cache", layers[name].kv_cache),
        ]
    return lambda: [each() for each in undo] and None


def scale_of_the_draft(worker: Any) -> Undo:
    """The embedding is scaled by the root of the draft's width, not the target's."""
    draft = adapters.draft_model(worker)
    value = torch.full_like(draft.model.normalizer, math.sqrt(draft.model.hidden_size))
    return replaced(draft.model, "normalizer", value)


def silu(worker: Any) -> Undo:
    """The draft's MLPs use SiLU where GELU belongs."""
    undo = [replaced(mlp, "act_fn", SiluAndMul()) for _, mlp, _ in adapters.mlps(adapters.draft_model(worker))]
    return lambda: [each() for each in undo] and None


def advancing_positions(worker: Any) -> Undo:
    """Positions advance from one draft step to the next (vllm#47920)."""
    return replaced(adapters.drafter(worker), "constant_draft_positions", False)


def state_carried_on_late(worker: Any) -> Undo:
    """Every later draft step is given the state that the step before was given, as in a loop that updates it late."""
    k, calls = adapters.follow(adapters.drafter(worker), "num_speculative_tokens"), itertools.count()
    late: dict[str, torch.Tensor] = {}

    def give(_module: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
        ids, positions, hidden, *rest = given
        step = next(calls) % k
        before, late["state"] = late.get("state"), hidden.clone()
        return (ids, positions, before if step > 1 else hidden, *rest)

    return adapters.draft_model(worker).model.register_forward_pre_hook(give).remove


def matrix_off_by_6_percent(worker: Any) -> Undo:
    """One of the draft's matrices is 6 % too large."""
    down = adapters.draft_model(worker).model.layers[1].mlp.down_proj
    return _scaled_output(down, 1.06)


def _scaled_output(module: nn.Module, factor: float) -> Undo:
    def scale(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        return (output[0] * factor, *output[1:])

    return module.register_forward_hook(scale).remove


def _expert_scaled(worker: Any, factor: float) -> Undo:
    layers = [layer for _, layer in adapters.moe_decoder_layers(adapters.target_model(worker))]
    scale = layers[LAYER].router.per_expert_scale.data
    before = scale[EXPERT].clone()
    scale[EXPERT] *= factor
    return lambda: scale[EXPERT].copy_(before) and None


def expert_scale_doubled(worker: Any) -> Undo:
    """One expert of one layer counts twice."""
    return _expert_scaled(worker, 2.0)


def expert_returns_zeros(worker: Any) -> Undo:
    """One expert of one layer gives zeros (from outside it looks like "Marlin gives null output")."""
    return _expert_scaled(worker, 0.0)


def every_expert_returns_zeros(worker: Any) -> Undo:
    """All routed experts give zeros: "Marlin gives null output" (vllm#37030)."""
    scales = [
        layer.router.per_expert_scale.data for _, layer in adapters.moe_decoder_layers(adapters.target_model(worker))
    ]
    before = [scale.clone() for scale in scales]
    for scale in scales:
        scale.zero_()
    return lambda: [scale.copy_(old) for scale, old in zip(scales, before, strict=True)] and None


def drafts_counted_one_token_short(_: Any) -> Undo:
    """The counters in /metrics say that every draft had one token fewer."""
    from vllm.v1.spec_decode.metrics import SpecDecodingStats

    right = SpecDecodingStats.observe_draft

    def short(self: Any, num_draft_tokens: int, num_accepted_tokens: int) -> None:
        right(self, num_draft_tokens - 1, num_accepted_tokens)

    return replaced(SpecDecodingStats, "observe_draft", short)


def grammar_skipped_at_the_boundary(_: Any) -> Undo:
    """The step in which a thought ends is not constrained by the grammar and not counted, as before vllm#44993."""
    from vllm.v1.structured_output import ConstraintBounds, StructuredOutputManager

    bounds = StructuredOutputManager._get_constraint_bounds

    def skipping(self: Any, request: Any, spec_tokens: Any, spec_tokens_committed: bool = False) -> Any:
        found = bounds(self, request, spec_tokens, spec_tokens_committed)
        behind = len(spec_tokens) + 1
        if found.constraint_start == 0 or found.grammar_start >= behind:
            return found
        if spec_tokens_committed:
            request.structured_output_request.reasoning_ended = True
        return ConstraintBounds(behind, behind)

    return replaced(StructuredOutputManager, "_get_constraint_bounds", skipping)


def thought_awaited_by_default(_: Any) -> Undo:
    """A request that says nothing of enable_thinking has its grammar wait for a thought, as in vllm#52430."""
    from vllm.v1.structured_output import StructuredOutputManager

    bounds = StructuredOutputManager._get_constraint_bounds

    def awaiting(self: Any, request: Any, *given: Any, **named: Any) -> Any:
        asked = request.structured_output_request
        said = (asked.reasoning_parser_kwargs or {}).get("chat_template_kwargs") or {}
        if "enable_thinking" not in said and not request.output_token_ids:
            asked.reasoning_ended = False
        return bounds(self, request, *given, **named)

    return replaced(StructuredOutputManager, "_get_constraint_bounds", awaiting)


def tokens_behind_a_draft_unconstrained(_: Any) -> Undo:
    """The grammar constrains only the first token of a step, and then rejects the others, as in vllm#44006."""

    def loosened(_: Any, mask: Any, rows: int) -> None:
        mask[1:rows] = EVERY_TOKEN

    return _masked(loosened)


def whitespace_preferred(_: Any) -> Undo:
    """Wherever the grammar allows whitespace, the answer gets it, and so has no end (vllm#40080)."""

    def narrowed(manager: Any, mask: Any, rows: int) -> None:
        (space,) = manager.tokenizer.encode(" ", add_special_tokens=False)
        word, bit = divmod(space, 32)
        only = np.array(1 << bit, dtype=np.uint32).astype(np.int32)
        for row in mask[:rows]:
            if row[word] & only:
                row[:] = 0
                row[word] = only

    return _masked(narrowed)


def _masked(change: Callable[[Any, Any, int], None]) -> Undo:
    """Change the masks of each request: the manager, the rows from its first one on, and how many are its own."""
    from vllm.v1.structured_output import StructuredOutputManager

    right = StructuredOutputManager.grammar_bitmask

    def wrong(self: Any, requests: Any, ids: list[str], drafted: Mapping[str, list[int]]) -> Any:
        mask, first = right(self, requests, ids, drafted), 0
        for each in ids:
            rows = 1 + len(drafted.get(each, ()))
            change(self, mask[first:], rows)
            first += rows
        return mask

    return replaced(StructuredOutputManager, "grammar_bitmask", wrong)


EXHIBITS: dict[str, Callable[[Any], Undo]] = {
    each.__name__: each
    for each in (
        embedding_not_shared,
        kv_of_the_first_layer,
        scale_of_the_draft,
        silu,
        advancing_positions,
        state_carried_on_late,
        matrix_off_by_6_percent,
        expert_scale_doubled,
        expert_returns_zeros,
        every_expert_returns_zeros,
        drafts_counted_one_token_short,
    )
}
CHAT_EXHIBITS: dict[str, Callable[[Any], Undo]] = {
    each.__name__: each
    for each in (
        grammar_skipped_at_the_boundary,
        thought_awaited_by_default,
        tokens_behind_a_draft_unconstrained,
        whitespace_preferred,
    )
}


class Museum(Probe):
    """The worker extension of a server that shows exhibits."""

    _conformance_offset = 0.0

    def conformance_break(self, exhibit: str) -> str:
        """Add one defect to those that are there."""
        undo: Undo = (EXHIBITS | LOAD_EXHIBITS | CHAT_EXHIBITS | FEATURE_EXHIBITS)[exhibit](self)
        self._conformance_undo = [*getattr(self, "_conformance_undo", []), undo]
        return exhibit

    def conformance_mend(self) -> str:
        """Undo the last defect."""
        self._conformance_undo.pop()()
        return "mended"

    def conformance_offset_coins(self, by: float) -> float:
        """From now on the random numbers accept drafts at rates that are higher by ``by`` than the given ones."""
        self._conformance_offset = by
        return by

    def conformance_coins_begin(self, rates: list[float], seed: int) -> dict[str, Any]:
        """The probe's own, at the given rates plus the offset."""
        return super().conformance_coins_begin([rate + self._conformance_offset for rate in rates], seed)

    def conformance_sampler(self) -> dict[str, Any]:
        """Which object decides about drafts, and how many hooks it has."""
        sampler = adapters.rejection_sampler(self)
        return {"id": id(sampler), "forward": id(sampler.forward.__func__), "hooks": len(sampler._forward_hooks)}
