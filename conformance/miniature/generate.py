"""Greedy decoding in batches, for evaluating the target and for the draft's training texts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from conformance.miniature.model import KeysValues, Masks, Target
from conformance.miniature.tokenizer import EOS_IDS


def _masks(queries: Tensor, keys: Tensor, window: int) -> Masks:
    """Causal masks from positions [batch, queries] and [batch, keys]; padding has position -1."""
    distance = queries[:, None, :, None] - keys[:, None, None, :]
    # A padded query sees the padding, because a row without a key is undefined.
    full = (distance >= 0) & ((keys >= 0)[:, None, None, :] | (queries < 0)[:, None, :, None])
    return Masks(full & (distance < window), full)


@torch.no_grad()
def greedy(target: Target, prompts: Sequence[Sequence[int]], window: int, limit: int) -> list[list[int]]:
    """Continue each prompt until an end token or ``limit`` tokens; the end token is part of the answer."""
    device = target.model.embed_tokens.weight.device
    width = max(len(prompt) for prompt in prompts)
    ids = torch.tensor([[0] * (width - len(prompt)) + list(prompt) for prompt in prompts], device=device)
    positions = torch.tensor([[-1] * (width - len(p)) + list(range(len(p))) for p in prompts], device=device)
    ends = torch.tensor(EOS_IDS, device=device)
    cache: list[KeysValues | None] = [None] * len(target.model.layers)
    seen, answers, open_rows = positions, [], torch.ones(len(prompts), dtype=torch.bool, device=device)
    for _ in range(limit):
        hidden = target.extend(ids, positions.clamp(min=0), _masks(positions, seen, window), cache)
        ids = target.logits(hidden[:, -1:]).argmax(-1)
        answers.append(torch.where(open_rows, ids[:, 0], -1))
        open_rows = open_rows & ~torch.isin(ids[:, 0], ends)
        if not open_rows.any():
            break
        positions = positions[:, -1:] + 1
        seen = torch.cat((seen, positions), 1)
    rows = torch.stack(answers, 1).tolist()
    return [[token for token in row if token >= 0] for row in rows]


def in_batches(target: Target, prompts: Sequence[Sequence[int]], window: int, limit: int) -> list[list[int]]:
    """Like ``greedy``, for many prompts; they are sorted by length, so that there is little padding."""
    size = 64 if target.model.embed_tokens.weight.device.type == "cpu" else 1024
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    answers: list[list[int]] = [[] for _ in prompts]
    for start in range(0, len(order), size):
        chosen = order[start : start + size]
        with torch.compiler.set_stance("force_eager"):  # the cache grows, so every step would compile a new shape
            found = greedy(target, [prompts[i] for i in chosen], window, limit)
        for index, answer in zip(chosen, found, strict=True):
            answers[index] = answer
    return answers
