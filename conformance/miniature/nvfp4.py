"""NVFP4 as modelopt writes it: the arithmetic, and a checkpoint in nvidia's 26B-A4B layout.

A weight [N, K] becomes four tensors: ``weight`` uint8 [N, K/2] (two E2M1 values a byte, low nibble = even
column), ``weight_scale`` FP8-E4M3 [N, K/16], ``weight_scale_2`` and ``input_scale`` float32 []. Its value is
``e2m1 * weight_scale * weight_scale_2``. The rounding is that of modelopt's ``NVFP4QTensor``;
compressed-tensors stores the reciprocal of ``weight_scale_2`` and otherwise the same bytes.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from conformance.harness.errors import UsageError

GROUP = 16
E2M1 = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])
E2M1_MAX, E4M3_MAX, E4M3_MIN = 6.0, 448.0, 2.0**-9

# The midpoints between neighbouring E2M1 magnitudes; a tie goes to the even code, so at every other one it goes up.
_TIE_STAYS = torch.tensor([0.25, 1.25, 2.5, 5.0])
_TIE_RISES = torch.tensor([0.75, 1.75, 3.5])

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
# vLLM tells the format of hf_quant_config.json by this name; the version is that of nvidia's 26B-A4B checkpoint.
_PRODUCER = {"name": "modelopt", "version": "0.43.0"}


class Nvfp4(NamedTuple):
    """One quantised weight (or a stack of them): ``[..., N, K/2]`` uint8, ``[..., N, K/16]`` FP8, ``[]`` float32."""

    weight: Tensor
    weight_scale: Tensor
    weight_scale_2: Tensor


def global_scale(amax: Tensor | float) -> Tensor:
    """The float32 [] scale that puts the largest block's own scale at 448; 1 for a tensor of zeros."""
    scale = torch.as_tensor(amax, dtype=torch.float32) / (E2M1_MAX * E4M3_MAX)
    return torch.where(scale > 0, scale, torch.ones_like(scale))


def encode(values: Tensor) -> Tensor:
    """E2M1 codes 0..15 (bit 3 = sign) of float values, rounded to nearest, ties to even, clamped at 6."""
    magnitude = values.abs()
    code = torch.bucketize(magnitude, _TIE_STAYS) + torch.bucketize(magnitude, _TIE_RISES, right=True)
    return (code + 8 * (values < 0)).to(torch.uint8)


def decode(codes: Tensor) -> Tensor:
    """The float32 values of E2M1 codes 0..15."""
    return torch.where(codes >= 8, -1.0, 1.0) * E2M1[(codes & 7).long()]


def quantise(weight: Tensor, scale_2: Tensor | None = None) -> Nvfp4:
    """Quantise ``[..., N, K]`` of any float type; K must be a multiple of 16.

    ``scale_2`` overrides the global scale where tensors share one. Blocks of zeros get scale 1, other blocks at
    least the smallest FP8 number, so that nothing is ever divided by zero.
    """
    scale_2 = global_scale(weight.abs().max()) if scale_2 is None else scale_2
    blocks = _blocks(weight.float())
    ideal = blocks.abs().amax(-1) / (E2M1_MAX * scale_2)
    ideal = torch.where(ideal == 0, 1.0, ideal).clamp(E4M3_MIN, E4M3_MAX)
    scale = ideal.to(torch.float8_e4m3fn)
    codes = encode(blocks / (scale.float() * scale_2).unsqueeze(-1)).flatten(-2)
    return Nvfp4(codes[..., 0::2] | codes[..., 1::2] << 4, scale, scale_2)


def dequantise(tensor: Nvfp4, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """The values ``[..., N, K]`` that the three tensors stand for, computed in float32."""
    codes = torch.stack((tensor.weight & 15, tensor.weight >> 4), dim=-1).flatten(-2)
    scale = tensor.weight_scale.float() * tensor.weight_scale_2
    return (_blocks(decode(codes)) * scale.unsqueeze(-1)).flatten(-2).to(dtype)


def _blocks(values: Tensor) -> Tensor:
    """``[..., K]`` as ``[..., K/16, 16]``."""
    return values.reshape(*values.shape[:-1], -1, GROUP)


def convert(bf16_dir: Path, nvfp4_dir: Path, calibration: Mapping[str, float] | None = None) -> None:
    """Quantise the routed experts of a Gemma 4 text checkpoint and copy everything else.

    ``bf16_dir`` holds transformers' ``Gemma4ForCausalLM``. ``calibration`` gives the largest absolute value that
    enters each fused expert tensor (``model.layers.N.experts.gate_up_proj`` and ``...down_proj``, all of them); one
    value serves all experts of the layer, so an expert that the calibration never reached is not left without.
    Without calibration ``input_scale`` is 1: a kernel with FP4 activations then clips nothing below 2688, and
    blocks whose largest activation is above 0.1 keep FP8's full precision. The same input gives the same bytes.

    Raises UsageError when the checkpoint is of another kind or the calibration does not fit it.
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
    """The per-expert tensors of one fused ``[E, rows, columns]``; gate and up of an expert share weight_scale_2."""
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
    """Every module that stays BF16, layer by layer, as modelopt lists them."""
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
