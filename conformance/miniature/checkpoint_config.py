"""The configurations of the miniature: those of Gemma-4-26B-A4B, with small numbers in the same proportions."""

from __future__ import annotations

from typing import Any

from conformance.miniature.model import FULL, SLIDING
from conformance.miniature.tokenizer import EOS_IDS, VOCABULARY_SIZE, high_id

K = 4  # num_speculative_tokens

_SHARED: dict[str, Any] = {
    "vocab_size": VOCABULARY_SIZE,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_global_key_value_heads": 1,
    "head_dim": 32,
    "global_head_dim": 64,
    "attention_k_eq_v": True,
    "sliding_window": 64,
    "hidden_activation": "gelu_pytorch_tanh",
    "rms_norm_eps": 1e-6,
    "attention_bias": False,
    "tie_word_embeddings": True,
    "max_position_embeddings": 4096,
    "hidden_size_per_layer_input": 0,
    "use_double_wide_mlp": False,
    "rope_parameters": {
        FULL: {"partial_rotary_factor": 0.25, "rope_theta": 1_000_000.0, "rope_type": "proportional"},
        SLIDING: {"rope_theta": 10_000.0, "rope_type": "default"},
    },
    "pad_token_id": 0,
    "eos_token_id": 1,
    "bos_token_id": 2,
}

GROUP = [SLIDING] * 5 + [FULL]
GROUPS = 5

TARGET: dict[str, Any] = _SHARED | {
    "hidden_size": 128,
    "intermediate_size": 96,
    "num_hidden_layers": len(GROUP) * GROUPS,
    "layer_types": GROUP * GROUPS,
    "num_kv_shared_layers": 0,
    "enable_moe_block": True,
    "num_experts": 8,
    "top_k_experts": 2,
    "moe_intermediate_size": 32,
    "final_logit_softcapping": 30.0,
    "vocab_size_per_layer_input": VOCABULARY_SIZE,
}

# Only the first and the last group of layers, with which training begins.
SHALLOW: dict[str, Any] = TARGET | {"num_hidden_layers": 2 * len(GROUP), "layer_types": GROUP * 2}

DRAFT: dict[str, Any] = {
    "backbone_hidden_size": TARGET["hidden_size"],
    "use_ordered_embeddings": False,
    "tie_word_embeddings": True,
    "text_config": _SHARED
    | {
        "hidden_size": 64,
        "intermediate_size": 512,
        "num_hidden_layers": 4,
        "layer_types": [SLIDING] * 3 + [FULL],
        "num_kv_shared_layers": 4,
        "enable_moe_block": False,
        "final_logit_softcapping": None,
        "vocab_size_per_layer_input": 0,
    },
}

GENERATION: dict[str, Any] = {
    "bos_token_id": 2,
    "do_sample": True,
    "eos_token_id": EOS_IDS,
    "pad_token_id": 0,
    "suppress_tokens": [high_id("<audio|>"), high_id("<image|>")],
    "temperature": 1.0,
    "top_k": 64,
    "top_p": 0.95,
}
