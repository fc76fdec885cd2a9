"""The arithmetic of NVFP4 as modelopt writes it.

A weight [N, K] becomes four tensors: ``weight`` uint8 [N, K/2] (two E2M1 values a byte, low nibble = even
column), ``weight_scale`` FP8-E4M3 [N, K/16], ``weight_scale_2`` and ``input_scale`` float32 []. Its value is
``e2m1 * weight_scale * weight_scale_2``. The rounding is that of modelopt's ``NVFP4QTensor``;
compressed-tensors stores the reciprocal of ``weight_scale_2`` and otherwise the same bytes.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

GROUP = 16
E2M1 = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])
E2M1_MAX, E4M3_MAX, E4M3_MIN = 6.0, 448.0, 2.0**-9

# The midpoints between neighbouring E2M1 magnitudes. A tie goes to the even code: some down, some up.
_TIE_STAYS = torch.tensor([0.25, 1.25, 2.5, 5.0])
_TIE_RISES = torch.tensor([0.75, 1.75, 3.5])


class Nvfp4(NamedTuple):
    """One quantised weight (or a stack of them): ``[..., N, K/2]`` uint8, ``[..., N, K/16]`` FP8, ``[]`` float32."""

    weight: Tensor
    weight_scale: Tensor
    weight_scale_2: Tensor


def global_scale(amax: Tensor | float) -> Tensor:
    """The float32 [] scale for which the largest block's own scale is 448; 1 for a tensor of zeros."""
    scale = torch.as_tensor(amax, dtype=torch.float32) / (E2M1_MAX * E4M3_MAX)
    return torch.where(scale > 0, scale, torch.ones_like(scale))


def encode(values: Tensor) -> Tensor:
    """E2M1 codes 0..15 (bit 3 = sign) of float values, rounded to nearest, ties to even, clamped at 6."""
    magnitude = values.abs()
    code = torch.bucketize(magnitude, _TIE_STAYS) + torch.bucketize(magnitude, _TIE_RISES, right=True)
    return (code + 8 * (values < 0)).to(torch.uint8)


def decode(codes: Tensor) -> Tensor:
    """The float32 values of E2M1 codes 0..15."""
    return torch.where(codes >= 8, -1.0, 1.0) * E2M1.to(codes.device)[(codes & 7).long()]


def quantise(weight: Tensor, scale_2: Tensor | None = None) -> Nvfp4:
    """Quantise ``[..., N, K]`` of any float type; K must be a multiple of 16.

    ``scale_2`` replaces the global scale if tensors share one. Blocks of zeros get scale 1, other blocks at least
    the smallest FP8 number, so that nothing is divided by zero.
    """
    scale_2 = global_scale(weight.abs().max()) if scale_2 is None else scale_2
    blocks = _blocks(weight.float())
    ideal = blocks.abs().amax(-1) / (E2M1_MAX * scale_2)
    ideal = torch.where(ideal == 0, 1.0, ideal).clamp(E4M3_MIN, E4M3_MAX)
    scale = ideal.to(torch.float8_e4m3fn)
    codes = encode(blocks / (scale.float() * scale_2).unsqueeze(-1)).flatten(-2)
    return Nvfp4(codes[..., 0::2] | codes[..., 1::2] << 4, scale, scale_2)


def dequantise(tensor: Nvfp4, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """The values ``[..., N, K]`` that the three tensors encode, computed in float32."""
    codes = torch.stack((tensor.weight & 15, tensor.weight >> 4), dim=-1).flatten(-2)
    scale = tensor.weight_scale.float() * tensor.weight_scale_2
    return (_blocks(decode(codes)) * scale.unsqueeze(-1)).flatten(-2).to(dtype)


def _blocks(values: Tensor) -> Tensor:
    """``[..., K]`` as ``[..., K/16, 16]``."""
    return values.reshape(*values.shape[:-1], -1, GROUP)
