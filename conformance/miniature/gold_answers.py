"""Makes gold continuations: what transformers generates greedily and in float32 from the shipped checkpoints.

One JSON Lines file for a target: a header that names the weights' SHA-256, then a row for each mixed prompt with the
token ids of prompt and answer, the second most likely token at every position, and its gap in nats. Where further
tokens are nearly as likely, ``others`` lists place, token and gap.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from conformance.checkpoints.headers import weights_sha256
from conformance.miniature.checkpoint_config import FAMILIES, WINDOW
from conformance.miniature.generate import in_batches
from conformance.miniature.model import Target
from conformance.reference.draft_steps import suppressed, target_model
from conformance.workload.prompts import Prompt

RANKS = 5  # the most likely tokens that are looked at
NEAR = 1.0  # nats; a token of a later rank is listed if its gap is no wider


def prompt_ids(tokenizer: PreTrainedTokenizerFast, prompt: Prompt) -> list[int]:
    """The token ids of a row of fixtures/prompts as a server renders it; arguments of calls become mappings."""
    messages = [
        message | {"tool_calls": [_with_mapping(call) for call in message["tool_calls"]]}
        if message.get("tool_calls")
        else message
        for message in prompt.messages
    ]
    text = tokenizer.apply_chat_template(
        messages,
        tools=list(prompt.tools) or None,
        add_generation_prompt=True,
        tokenize=False,
        **(prompt.chat_template_kwargs or {}),
    )
    return tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids


def _with_mapping(call: dict[str, Any]) -> dict[str, Any]:
    function = call["function"]
    return call | {"function": function | {"arguments": json.loads(function["arguments"])}}


@torch.no_grad()
def _most_likely(model: Any, ids: Sequence[int], start: int, never: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Log probabilities and ids [positions, RANKS] of the most likely tokens at every position from ``start`` on."""
    logits = model(input_ids=torch.tensor([ids])).logits[0, start - 1 : -1]
    logits[:, list(never)] = -torch.inf
    top = logits.log_softmax(-1).topk(RANKS, -1)
    return top.values, top.indices


def rows(folder: Path, tokenizer: PreTrainedTokenizerFast, prompts: Sequence[Prompt]) -> Iterator[dict[str, Any]]:
    """The header and the rows. The training twin, which is faster, generates the answers; transformers confirms them.

    Raises:
        RuntimeError: transformers generates another token.
    """
    model, never, twin = target_model(folder), suppressed(folder), Target(FAMILIES[folder.parent.name].target)
    twin.load_state_dict({name: tensor for name, tensor in model.state_dict().items() if name != "lm_head.weight"})
    yield {"target": folder.name, "sha256": weights_sha256(folder), "computed_in": "float32"}
    asked = [prompt_ids(tokenizer, prompt) for prompt in prompts]
    proposed = in_batches(twin, asked, WINDOW, max(prompt.max_tokens for prompt in prompts))
    for prompt, before, answer in zip(prompts, asked, proposed, strict=True):
        values, indices = _confirm(model, before, answer, never)
        gaps = values[:, :1] - values
        row = {"id": prompt.id, "prompt": before, "answer": answer, "runner_up": indices[:, 1].tolist()}
        yield row | {"gap": [round(gap, 4) for gap in gaps[:, 1].tolist()]} | _others(gaps, indices)


def _others(gaps: Tensor, indices: Tensor) -> dict[str, list[list[float]]]:
    """Place, token and gap of tokens that are nearly as likely, from the third on."""
    near = (gaps[:, 2:] <= NEAR).nonzero().tolist()
    found = [[place, int(indices[place, 2 + rank]), round(float(gaps[place, 2 + rank]), 4)] for place, rank in near]
    return {"others": found} if found else {}


def _confirm(model: Any, before: list[int], answer: list[int], never: Sequence[int]) -> tuple[Tensor, Tensor]:
    values, indices = _most_likely(model, [*before, *answer], len(before), never)
    if indices[:, 0].tolist() != answer:
        raise RuntimeError(f"transformers does not generate {answer}, but {indices[:, 0].tolist()}")
    return values, indices
