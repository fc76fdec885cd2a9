"""Computes outputs of the running server's own modules for fixed inputs; see ``samples`` for the inputs.

Nothing is patched or stored: this calls the modules as the model does, between two requests.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from conformance.inside_vllm import adapters, samples

Shown = list[list[float | None]]  # [rows, compared columns]


@torch.inference_mode()
def draft_linears(worker: Any) -> dict[str, Shown]:
    """The output of every linear layer of the draft and of its head, by vLLM's name."""
    draft = adapters.draft_model(worker)
    found = {}
    for name, module, width, _ in adapters.linear_layers(draft):
        x = _like_weights(draft, samples.inputs(name, samples.ROWS, width))
        if not name.endswith("lm_head"):
            found[name] = _shown(name, adapters.all_parts(module, _whole(module(adapters.own_part(module, x)))))
        elif (logits := adapters.draft_logits(worker, x)) is not None:  # perhaps only the first worker has logits
            found[name] = _shown(name, logits)
    return found


@torch.inference_mode()
def draft_mlps(worker: Any) -> dict[str, Shown]:
    """The output of every MLP of the draft, including the activation."""
    draft = adapters.draft_model(worker)
    found = {}
    for name, module, width in adapters.mlps(draft):
        found[name] = _shown(name, module(_like_weights(draft, samples.inputs(name, samples.ROWS, width))))
    return found


@torch.inference_mode()
def experts(worker: Any, layers: Iterable[int]) -> dict[str, dict[str, Any]]:
    """Router logits, and the routed experts' output for given logits, of some layers of the target."""
    target = adapters.target_model(worker)
    found = {}
    for name, layer in _select(adapters.moe_decoder_layers(target), set(layers)):
        width, count, top_k = adapters.moe_sizes(layer)
        rows = samples.rows_for(count, top_k)
        x = _like_weights(target, samples.inputs(name, rows, width))
        logits = samples.router_logits(name, rows, count, top_k).to(x.device)
        routed = layer.router(x)
        with _alone(worker, rows):
            mixed = adapters.experts_call(layer)(x, logits)
        found[name] = {
            "backend": adapters.moe_backend(next(adapters.moe_layers(layer))[1]),
            "router": _finite(routed),
            "experts": _shown(name, mixed),
        }
    return found


def _select(layers: Iterable[tuple[str, nn.Module]], wanted: set[int]) -> Iterator[tuple[str, Any]]:
    return ((name, layer) for index, (name, layer) in enumerate(layers) if index in wanted)


def _alone(worker: Any, rows: int) -> AbstractContextManager[Any]:
    """vLLM's forward context for a call without a request."""
    context: AbstractContextManager[Any] = adapters.forward_context()(
        None, adapters.follow(worker, "vllm_config"), num_tokens=rows
    )
    return context


def _like_weights(model: nn.Module, x: Tensor) -> Tensor:
    """The input in the model's dtype and on its device."""
    norm = next(parameter for parameter in model.parameters() if parameter.is_floating_point() and parameter.dim() == 1)
    return x.to(norm.device, norm.dtype)


def _shown(name: str, output: Tensor | tuple[Tensor, ...]) -> Shown:
    whole = _whole(output)
    return _finite(whole[:, samples.columns(name, whole.shape[-1]).to(whole.device)])


def _whole(output: Tensor | tuple[Tensor, ...]) -> Tensor:
    """The output without the bias that some layers return beside it."""
    return output[0] if isinstance(output, tuple) else output


def _finite(values: Tensor) -> Shown:
    """The values, with None for NaN and infinity, which JSON does not have."""
    rows: list[list[float]] = values.float().cpu().tolist()
    return [[value if math.isfinite(value) else None for value in row] for row in rows]
