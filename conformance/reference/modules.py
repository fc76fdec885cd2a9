"""The reference outputs of single modules, computed in float32 from the checkpoint's own (decoded) weights.

The inputs come from ``inside_vllm.samples``; the arithmetic is that of Gemma 4 in transformers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor

from conformance.checkpoints.draft_names import in_checkpoint
from conformance.checkpoints.headers import read_headers, read_json
from conformance.checkpoints.nvfp4 import Nvfp4, dequantise
from conformance.checkpoints.pairing import text_keys
from conformance.errors import Unsupported
from conformance.inside_vllm import samples

Shown = list[list[float]]  # [rows, compared columns]
SMALL_BYTES = 1 << 30


class Weights:
    """The tensors of one checkpoint, read on demand and decoded to float32 on a device."""

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        self.device = torch.device(device)
        self._headers = read_headers(folder)
        self._open: dict[Path, Any] = {}
        self.text: Mapping[str, Any] = text_keys(read_json(folder / "config.json")).table

    def choose_threads(self) -> None:
        """Compute on one thread if the checkpoint is small: two threads would wait for each other in busy loops."""
        if sum(tensor.end - tensor.start for tensor in self._headers.values()) < SMALL_BYTES:
            torch.set_num_threads(1)

    def layer(self, index: int) -> str:
        """The full prefix of a decoder layer's tensors, which depends on the checkpoint."""
        tail = f"layers.{index}."
        found = next(name for name in self._headers if tail in name and "vision" not in name and "audio" not in name)
        return found[: found.index(tail) + len(tail)]

    def __contains__(self, name: str) -> bool:
        return name in self._headers

    def __getitem__(self, name: str) -> Tensor:
        """A weight as float32; it is stored unquantised, or in the NVFP4 of modelopt or compressed-tensors."""
        stem = name.removesuffix(".weight")
        if f"{stem}.weight_packed" in self:  # compressed-tensors: its global scale is the reciprocal of modelopt's
            return dequantise(self._compressed(stem), torch.float32)
        if f"{stem}.weight_scale_2" in self:
            return dequantise(Nvfp4(*(self._raw(f"{stem}.{field}") for field in Nvfp4._fields)), torch.float32)
        return self._raw(name).float()

    def _compressed(self, stem: str) -> Nvfp4:
        scale_2 = self._raw(f"{stem}.weight_global_scale").reshape(()).reciprocal()
        return Nvfp4(self._raw(f"{stem}.weight_packed"), self._raw(f"{stem}.weight_scale"), scale_2)

    def _raw(self, name: str) -> Tensor:
        path = self._headers[name].file
        if path not in self._open:  # kept open: a target has tens of thousands of tensors
            self._open[path] = safe_open(path, framework="pt")
        tensor: Tensor = self._open[path].get_tensor(name)
        return tensor.to(self.device)

    def experts(self, layer: str, count: int) -> tuple[Tensor, Tensor]:
        """Gate and up [experts, 2 × intermediate, hidden], and down [experts, hidden, intermediate] of one layer.

        Raises:
            Unsupported: the experts are stored in an unknown form.
        """
        fused = f"{layer}experts.gate_up_proj"
        if fused in self:
            return self[fused], self[f"{layer}experts.down_proj"]
        if f"{layer}experts.0.gate_proj.weight" not in self and f"{layer}experts.0.gate_proj.weight_packed" not in self:
            raise Unsupported(f"The experts of {layer} are stored in a form that this suite does not decode.")

        gate, up, down = (
            self._stacked([f"{layer}experts.{index}.{part}_proj" for index in range(count)])
            for part in ("gate", "up", "down")
        )
        return torch.cat((gate, up), 1), down

    def _stacked(self, stems: Sequence[str]) -> Tensor:
        """The weights of some linears of one shape; they are decoded together, which takes a tenth of the time."""
        if f"{stems[0]}.weight_packed" in self:
            packed = [self._compressed(stem) for stem in stems]
        elif f"{stems[0]}.weight_scale_2" in self:
            packed = [Nvfp4(*(self._raw(f"{stem}.{field}") for field in Nvfp4._fields)) for stem in stems]
        else:
            return torch.stack([self[f"{stem}.weight"] for stem in stems])
        weight, scale, scale_2 = (torch.stack(parts) for parts in zip(*packed, strict=True))
        return dequantise(Nvfp4(weight, scale, scale_2[:, None, None]), torch.float32)


@lru_cache(maxsize=3)
def weights(folder: Path, device: str = "cpu") -> Weights:
    """The weights of the checkpoint in a folder, decoded on a device."""
    return Weights(folder, device)


def draft_linear(draft: Weights, name: str) -> Shown:
    """The output of one linear layer of the draft, by its name in vLLM."""
    own = in_checkpoint(f"{name}.weight").removesuffix(".weight")
    if own == "lm_head":
        own = "model.embed_tokens"
    parts = [own]
    if own.endswith(".gate_up_proj"):
        parts = [own.replace("gate_up_proj", part) for part in ("gate_proj", "up_proj")]
    matrix = torch.cat([draft[f"{part}.weight"] for part in parts])
    return _shown(name, samples.inputs(name, samples.ROWS, matrix.shape[1]).to(draft.device) @ matrix.T)


def draft_mlp(draft: Weights, name: str) -> Shown:
    """The output of one MLP of the draft with its activation."""
    gate, up, down = (draft[f"{name}.{part}_proj.weight"] for part in ("gate", "up", "down"))
    x = samples.inputs(name, samples.ROWS, gate.shape[1]).to(draft.device)
    return _shown(name, _gelu(x @ gate.T) * (x @ up.T) @ down.T)


def router(target: Weights, index: int, name: str) -> Shown:
    """Router logits [rows, experts] of the normalised input, scaled by 1 / √width and by the learned scale."""
    layer = target.layer(index)
    matrix, scale = target[f"{layer}router.proj.weight"], target[f"{layer}router.scale"]
    count, width = matrix.shape
    x = samples.inputs(name, samples.rows_for(count, int(target.text["top_k_experts"])), width).to(target.device)
    normal = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + float(target.text.get("rms_norm_eps", 1e-6)))
    logits: Shown = ((normal * width**-0.5 * scale) @ matrix.T).tolist()
    return logits


def experts(target: Weights, index: int, name: str) -> Shown:
    """The routed experts' output, weighted by the softmax over all, renormalised over the top k, and expert scales."""
    layer, count, top_k = target.layer(index), int(target.text["num_experts"]), int(target.text["top_k_experts"])
    gate_up, down = target.experts(layer, count)
    rows = samples.rows_for(count, top_k)
    x = samples.inputs(name, rows, down.shape[1]).to(target.device)
    probabilities = samples.router_logits(name, rows, count, top_k).to(target.device).softmax(-1)
    weight, chosen = probabilities.topk(top_k, -1)
    weight = weight / weight.sum(-1, keepdim=True) * target[f"{layer}router.per_expert_scale"][chosen]
    gate, up = torch.einsum("rh,rkdh->rkd", x, gate_up[chosen]).chunk(2, -1)
    mixed = torch.einsum("rkd,rkhd->rkh", _gelu(gate) * up, down[chosen])
    return _shown(name, (mixed * weight.unsqueeze(-1)).sum(1))


def _gelu(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


def _shown(name: str, output: Tensor) -> Shown:
    shown: Shown = output[:, samples.columns(name, output.shape[1]).to(output.device)].tolist()
    return shown
