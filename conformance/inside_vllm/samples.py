"""Inputs that both sides of a numerical comparison make for themselves: the same name gives the same numbers.

The server's process passes them to its own modules, the suite to a float32 reference. Only outputs are sent.
"""

from __future__ import annotations

import zlib

import torch
from torch import Tensor

ROWS = 8  # input vectors for a linear layer or an MLP
SHOWN = 64  # compared output columns; a whole vocabulary would not fit into an answer


def inputs(name: str, rows: int, width: int) -> Tensor:
    """Standard normal [rows, width], already rounded to BF16, as float32."""
    generator = torch.Generator().manual_seed(zlib.crc32(f"{name} {rows} {width}".encode()))
    return torch.randn(rows, width, generator=generator).bfloat16().float()


def columns(name: str, width: int) -> Tensor:
    """Indices of the output columns that are compared, int64, at most ``SHOWN``."""
    generator = torch.Generator().manual_seed(zlib.crc32(f"columns of {name}".encode()))
    return torch.randperm(width, generator=generator)[:SHOWN].sort().values


def rows_for(experts: int, top_k: int) -> int:
    """The number of rows of ``router_logits`` for which every expert gets at least one."""
    return max(ROWS, -(-experts // top_k))


def router_logits(name: str, rows: int, experts: int, top_k: int) -> Tensor:
    """Logits float32 [rows, experts] that send row r to the experts r * top_k … (r + 1) * top_k - 1, modulo experts.

    The logits of chosen experts are at least 3 higher than the others, so that rounding does not change the choice.
    """
    logits = inputs(f"router of {name}", rows, experts).clamp(-1, 1)
    chosen = (torch.arange(rows)[:, None] * top_k + torch.arange(top_k)) % experts
    return logits.scatter_add(1, chosen, torch.full(chosen.shape, 5.0))
