"""Converts a BF16 checkpoint of the miniature to NVFP4, in the layout of nvidia's 26B-A4B."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from conformance.checkpoints.nvfp4 import GROUP, global_scale, quantise
from conformance.errors import UsageError

_EXPERTS = re.compile(r"(?P<layer>model\.layers\.(?P<index>\d+))\.experts\.(?P<kind>gate_up_proj|down_proj)")
_COPIED = (
    "added_tokens.json",
    "chat_template.jinja",
    "generation_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
)
# vLLM recognises the format of hf_quant_config.json by this name; the version is that of nvidia's 26B-A4B checkpoint.
_PRODUCER = {"name": "modelopt", "version": "0.43.0"}


def convert(bf16_dir: Path, nvfp4_dir: Path, calibration: Mapping[str, float] | None = None) -> None:
    """Quantise the routed experts of a Gemma 4 text checkpoint and copy everything else.

    ``bf16_dir`` holds transformers' ``Gemma4ForCausalLM``. ``calibration`` gives the largest absolute value that
    enters each fused expert tensor (``model.layers.N.experts.gate_up_proj`` and ``...down_proj``, all of them). One
    value holds for all experts of a layer, so that experts which the calibration never reached have a value too.
    Without calibration, ``input_scale`` is 1: a kernel with FP4 activations then clips nothing below 2688, and blocks
    whose largest activation is above 0.1 keep FP8's full precision. The same input gives the same bytes.

    Raises:
        UsageError: the checkpoint is of another kind, or the calibration does not fit it.
    """
    config = _read_config(bf16_dir)
    kept: dict[str, Tensor] = {}
    quantised: dict[str, Tensor] = {}
    fused: set[str] = set()
    for name, tensor in _tensors(bf16_dir):
        match = _EXPERTS.fullmatch(name)
        if match is None:
            kept[name] = tensor
            continue
        if tensor.shape[-1] % GROUP:
            raise UsageError(f"{bf16_dir}: {name} has {tensor.shape[-1]} columns; NVFP4 needs a multiple of {GROUP}.")
        fused.add(name)
        quantised |= _experts(match["layer"], match["kind"], tensor, _input_scale(calibration, name, bf16_dir))
    if not fused:
        raise UsageError(f"{bf16_dir} has no tensor model.layers.N.experts.gate_up_proj; give a Gemma 4 MoE target.")
    if unknown := sorted(set(calibration or ()) - fused):
        raise UsageError(f"The calibration names {unknown[0]}, which {bf16_dir} does not hold; remove that entry.")

    nvfp4_dir.mkdir(parents=True, exist_ok=True)
    save_file(kept | quantised, nvfp4_dir / "model.safetensors", metadata={"format": "pt"})
    ignore = _ignored(config["num_hidden_layers"])
    _write_json(nvfp4_dir / "config.json", config | {"quantization_config": _quantization_config(ignore)})
    _write_json(nvfp4_dir / "hf_quant_config.json", _hf_quant_config(ignore))
    for name in _COPIED:
        if (bf16_dir / name).is_file():
            shutil.copyfile(bf16_dir / name, nvfp4_dir / name)


def _read_config(directory: Path) -> dict[str, Any]:
    path = directory / "config.json"
    if not path.is_file():
        raise UsageError(f"{path} does not exist; give the folder of a Gemma 4 text checkpoint.")
    config: dict[str, Any] = json.loads(path.read_text())
    if config.get("architectures") != ["Gemma4ForCausalLM"]:
        raise UsageError(f"{path}: architectures is {config.get('architectures')}; give a Gemma4ForCausalLM target.")
    if "quantization_config" in config:
        raise UsageError(f"{path}: quantization_config is present; give the BF16 checkpoint.")
    return config


def _tensors(directory: Path) -> Iterator[tuple[str, Tensor]]:
    for path in sorted(directory.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in sorted(file.keys()):
                yield name, file.get_tensor(name)


def _input_scale(calibration: Mapping[str, float] | None, name: str, directory: Path) -> Tensor:
    if calibration is None:
        return torch.ones(())
    if name not in calibration:
        raise UsageError(f"The calibration lacks {name} of {directory}; give every expert tensor or none.")
    return global_scale(calibration[name])


def _experts(layer: str, kind: str, stacked: Tensor, input_scale: Tensor) -> dict[str, Tensor]:
    """The tensors of each expert in one fused ``[E, rows, columns]``; gate and up share weight_scale_2."""
    parts = ("gate_proj", "up_proj") if kind == "gate_up_proj" else ("down_proj",)
    tensors: dict[str, Tensor] = {}
    for expert, matrix in enumerate(stacked):
        scale_2 = global_scale(matrix.abs().max())
        for part, rows in zip(parts, matrix.chunk(len(parts)), strict=True):
            prefix = f"{layer}.experts.{expert}.{part}"
            tensors |= {f"{prefix}.{field}": t.clone() for field, t in quantise(rows, scale_2)._asdict().items()}
            tensors[f"{prefix}.input_scale"] = input_scale.clone()
    return tensors


def _ignored(layers: int) -> list[str]:
    """Every module that stays in BF16, layer by layer, as modelopt lists them."""
    per_layer = [f"model.layers.{i}.{module}*" for i in range(layers) for module in ("mlp", "router", "self_attn")]
    return ["lm_head", "model.embed_tokens", *per_layer]


def _quantization_config(ignore: list[str]) -> dict[str, Any]:
    fp4 = {"dynamic": False, "num_bits": 4, "type": "float", "group_size": GROUP}
    return {
        "config_groups": {"group_0": {"input_activations": fp4, "weights": fp4, "targets": ["Linear"]}},
        "ignore": ignore,
        "quant_algo": "NVFP4",
        "producer": _PRODUCER,
        "quant_method": "modelopt",
    }


def _hf_quant_config(ignore: list[str]) -> dict[str, Any]:
    quantization = {
        "quant_algo": "NVFP4",
        "kv_cache_quant_algo": None,
        "group_size": GROUP,
        "exclude_modules": ignore,
    }
    return {"producer": _PRODUCER, "quantization": quantization}


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
