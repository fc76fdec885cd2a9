"""A random-weight Gemma 4 pair, small enough to make in a second: the same structure as the miniature, untrained."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    Gemma4AssistantConfig,
    Gemma4AssistantForCausalLM,
    Gemma4ForCausalLM,
    Gemma4TextConfig,
    PreTrainedTokenizerFast,
)

from conformance.miniature.convert_nvfp4 import convert

VOCABULARY, HIDDEN, EXPERTS, LAYERS = 512, 128, 8, 6
# Where a CPU has AMX, a first prompt of one or two tokens ends vLLM 0.32 with SIGILL (docs/upstream.md).
TURN = " turn" * 16
SLIDING, FULL = "sliding_attention", "full_attention"
_SHARED: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_global_key_value_heads": 1,
    "head_dim": 32,
    "global_head_dim": 64,
    "attention_k_eq_v": True,
    "sliding_window": 64,
    "max_position_embeddings": 2048,
    "hidden_size_per_layer_input": 0,
    "tie_word_embeddings": True,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "bos_token_id": 2,
}
_TARGET: dict[str, Any] = _SHARED | {
    "hidden_size": HIDDEN,
    "intermediate_size": 128,
    "num_hidden_layers": LAYERS,
    "layer_types": [SLIDING] * 5 + [FULL],
    "enable_moe_block": True,
    "num_experts": EXPERTS,
    "top_k_experts": 2,
    "moe_intermediate_size": 32,
    "final_logit_softcapping": 30.0,
}
_DRAFT: dict[str, Any] = _SHARED | {
    "hidden_size": 64,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "layer_types": [SLIDING] * 3 + [FULL],
    "num_kv_shared_layers": 4,
    "vocab_size_per_layer_input": 0,
    "enable_moe_block": False,
}


@dataclass(frozen=True)
class MicroPair:
    """Folders of one target in both quantisations and of its draft."""

    target_bf16: Path
    target_nvfp4: Path
    draft: Path


def make_micro_pair(directory: Path, seed: int = 0) -> MicroPair:
    """Write the pair below ``directory``; the same seed gives the same weights."""
    pair = MicroPair(directory / "target-bf16", directory / "target-nvfp4", directory / "draft")
    torch.manual_seed(seed)
    draft_config = Gemma4AssistantConfig(text_config=Gemma4TextConfig(**_DRAFT), backbone_hidden_size=HIDDEN)
    _save(Gemma4ForCausalLM(Gemma4TextConfig(**_TARGET)), pair.target_bf16)
    _save(Gemma4AssistantForCausalLM(draft_config), pair.draft)
    convert(pair.target_bf16, pair.target_nvfp4)
    return pair


def _save(model: Any, directory: Path) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() >= 2:
                parameter.normal_(std=parameter.shape[-1] ** -0.5)
    model.to(torch.bfloat16).save_pretrained(directory)
    _tokenizer().save_pretrained(directory)


def _tokenizer() -> PreTrainedTokenizerFast:
    words = ["<pad>", "<eos>", "<bos>", "<unk>", *(f"w{number}" for number in range(4, VOCABULARY))]
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<eos>",
        bos_token="<bos>",
        unk_token="<unk>",
        chat_template="{{ bos_token }}" + TURN + "{% for message in messages %} {{ message.content }}{% endfor %}",
    )
