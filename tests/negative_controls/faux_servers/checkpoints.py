"""Checkpoints of the published sizes: real configs and headers, and zeros for weights."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

from conformance.checkpoints.pairing import implied_tensors, refusals

BYTES = {"BF16": 2, "F16": 2, "F32": 4, "I32": 4, "I64": 8, "U8": 1}
SLIDING, FULL = "sliding_attention", "full_attention"
ROPE = {FULL: {"rope_type": "proportional", "rope_theta": 1e6}, SLIDING: {"rope_type": "default", "rope_theta": 1e4}}

# size: backbone, ordered, hidden, intermediate, heads, kv, global kv, k_eq_v, window; then tensors and their bytes.
PUBLISHED: dict[str, tuple[tuple[Any, ...], int, int]] = {
    "E2B": ((1536, True, 256, 2048, 4, 1, None, False, 512), 50, 157_559_816),
    "E4B": ((2560, True, 256, 2048, 4, 2, None, False, 512), 50, 159_132_680),
    "12B": ((3840, False, 1024, 8192, 16, 8, 1, True, 1024), 48, 845_713_928),
    "26B-A4B": ((2816, False, 1024, 8192, 16, 8, 2, True, 1024), 48, 839_422_472),
    "31B": ((5376, False, 1024, 8192, 32, 16, 4, True, 1024), 48, 939_037_192),
}


def configs(size: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The config.json of target and draft, with the keys that matter here."""
    backbone, ordered, hidden, wide, heads, kv, global_kv, k_eq_v, window = PUBLISHED[size][0]
    unified = "_unified" if size == "12B" else ""
    shared = {
        "model_type": f"gemma4{unified}_text",
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "num_global_key_value_heads": global_kv,
        "attention_k_eq_v": k_eq_v,
        "head_dim": 256,
        "global_head_dim": 512,
        "sliding_window": window,
        "vocab_size": 262144,
        "rope_parameters": ROPE,
    }
    target = {
        "model_type": f"gemma4{unified}",
        "architectures": ["Gemma4ForConditionalGeneration"],
        "text_config": shared
        | {"hidden_size": backbone, "layer_types": [SLIDING, FULL] * 3, "num_kv_shared_layers": 2},
    }
    draft = {
        "model_type": f"gemma4{unified}_assistant",
        "architectures": ["Gemma4AssistantForCausalLM"],
        "backbone_hidden_size": backbone,
        "use_ordered_embeddings": ordered,
        "num_centroids": 2048,
        "dtype": "bfloat16",
        "text_config": shared
        | {"hidden_size": hidden, "intermediate_size": wide, "layer_types": [SLIDING, SLIDING, SLIDING, FULL]},
    }
    return target, draft


def write_file(path: Path, tensors: Mapping[str, tuple[str, tuple[int, ...]]]) -> None:
    """Write a sparse safetensors file of zeros, so that the real sizes need no disk space."""
    header, end = {}, 0
    for name, (dtype, shape) in tensors.items():
        begin, end = end, end + BYTES[dtype] * prod(shape)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
    raw = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        file.truncate(8 + len(raw) + end)


class Checkpoints:
    """A target and a draft on disk, for tests to damage."""

    def __init__(self, folder: Path, size: str) -> None:
        self.target, self.draft = folder / "target", folder / "draft"
        self.target_config, self.draft_config = configs(size)
        self.tensors = {name: (it.dtype, it.shape) for name, it in implied_tensors(self.draft_config).items()}
        self.target.mkdir()
        self.draft.mkdir()
        self.write()

    def write(self) -> None:
        text = self.target_config["text_config"]
        embedding = {"model.language_model.embed_tokens.weight": ("BF16", (262144, text["hidden_size"]))}
        write_file(self.target / "model.safetensors", embedding)
        write_file(self.draft / "model.safetensors", self.tensors)
        (self.target / "config.json").write_text(json.dumps(self.target_config))
        (self.draft / "config.json").write_text(json.dumps(self.draft_config))

    def refusals(self) -> list[str]:
        """Write the changed files again; return the refusals, without the name of the folder."""
        self.write()
        found = refusals(self.target, self.draft)
        return [sentence.replace(f"{self.target.parent}/", "") for sentence in found]
