"""The configurations of the miniatures: those of the published pairs, with small numbers in the same proportions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from conformance.miniature.model import FULL, SLIDING
from conformance.miniature.tokenizer import EOS_IDS, VOCABULARY_SIZE, high_id

K = 4  # num_speculative_tokens
WINDOW = 64

_BOTH: dict[str, Any] = {
    "vocab_size": VOCABULARY_SIZE,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_global_key_value_heads": 1,
    "head_dim": 32,
    "global_head_dim": 64,
    "attention_k_eq_v": True,
    "sliding_window": WINDOW,
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
_TARGET: dict[str, Any] = _BOTH | {
    "num_kv_shared_layers": 0,
    "enable_moe_block": False,
    "final_logit_softcapping": 30.0,
    "vocab_size_per_layer_input": VOCABULARY_SIZE,
}
_DRAFT_TEXT: dict[str, Any] = _BOTH | {
    "hidden_size": 64,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "layer_types": [SLIDING] * 3 + [FULL],
    "num_kv_shared_layers": 4,
    "enable_moe_block": False,
    "final_logit_softcapping": None,
    "vocab_size_per_layer_input": 0,
}


@dataclass(frozen=True)
class Family:
    """One miniature: ``target`` and ``draft`` are the contents of config.json, ``group`` repeats in the layer types."""

    group: list[str]
    target: dict[str, Any]
    draft: dict[str, Any]
    quantised: bool = False  # whether an NVFP4 target is shipped too
    empty_thought: bool = True  # whether the template writes an empty thought if thinking is off

    @property
    def shallow(self) -> dict[str, Any]:
        """The target with only the first and the last group of layers; training begins with it."""
        return self.target | _layers(self.group, 2)


def _layers(group: list[str], groups: int) -> dict[str, Any]:
    return {"num_hidden_layers": len(group) * groups, "layer_types": group * groups}


def _draft(backbone: int, text: dict[str, Any], **top: Any) -> dict[str, Any]:
    own = {"backbone_hidden_size": backbone, "use_ordered_embeddings": False, "tie_word_embeddings": True}
    return own | top | {"text_config": _DRAFT_TEXT | text}


_FIVE_TO_ONE, _FOUR_TO_ONE = [SLIDING] * 5 + [FULL], [SLIDING] * 4 + [FULL]
# As in E2B: one head of keys and values, and values of their own in full layers.
_E_TYPE = {"num_key_value_heads": 1, "num_global_key_value_heads": None, "attention_k_eq_v": False}

FAMILIES = {
    "micro-26b-a4b": Family(
        _FIVE_TO_ONE,
        _TARGET
        | _layers(_FIVE_TO_ONE, 5)
        | {
            "hidden_size": 128,
            "intermediate_size": 96,
            "enable_moe_block": True,
            "num_experts": 8,
            "top_k_experts": 2,
            "moe_intermediate_size": 32,
        },
        _draft(128, {}),
        quantised=True,
    ),
    "micro-31b": Family(
        _FIVE_TO_ONE,
        _TARGET | _layers(_FIVE_TO_ONE, 3) | {"hidden_size": 112, "intermediate_size": 352},
        _draft(112, {}),
    ),
    "micro-e2b": Family(
        _FOUR_TO_ONE,
        _TARGET
        | _layers(_FOUR_TO_ONE, 2)
        | _E_TYPE
        | {
            "hidden_size": 96,
            "intermediate_size": 256,
            "num_kv_shared_layers": 5,
            "use_double_wide_mlp": True,
            "hidden_size_per_layer_input": 16,
        },
        _draft(96, _E_TYPE, use_ordered_embeddings=True, num_centroids=32, centroid_intermediate_top_k=6),
        empty_thought=False,
    ),
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
