"""Records the weights that vLLM loaded into target and draft, before vLLM repacks them.

After loading, vLLM's backends rearrange, pad or empty the parameters, so shapes and bytes can only be read between
``load_weights`` and ``process_weights_after_loading``. This module reads them there and changes nothing.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from conformance.errors import Unsupported
from conformance.inside_vllm import adapters

logger = logging.getLogger("vllm.conformance.snapshot")


def install(directory: Path) -> None:
    """Record every model that this process loads, in one file in ``directory``. A second call does nothing."""
    loader = adapters.loader()
    original = loader.process_weights_after_loading
    if hasattr(original, "conformance_directory"):
        return

    @functools.wraps(original)
    def observed(model: nn.Module, model_config: Any, *rest: Any, **named: Any) -> Any:
        try:
            write(directory, *record(model, model_config))
        except Exception:  # an error in recording must not affect the server
            logger.exception("conformance: no snapshot of %s", type(model).__name__)
        return original(model, model_config, *rest, **named)

    observed.conformance_directory = directory  # type: ignore[attr-defined]
    loader.process_weights_after_loading = observed


def record(model: nn.Module, model_config: Any) -> tuple[str, dict[str, Any]]:
    """The role ("target" or "draft") and the record of a loaded model; only a draft's bytes are hashed."""
    role = "draft" if adapters.is_draft(model_config) else "target"
    document: dict[str, Any] = {"class": type(model).__name__, "parameters": parameters(model, hashed=role == "draft")}
    for name, look in {"linears": _linears, "moe": _moe}.items():
        try:
            document[name] = look(model)
        except Unsupported as reason:
            document[name] = {"unsupported": str(reason)}
    return role, document


def parameters(model: nn.Module, hashed: bool) -> dict[str, dict[str, Any]]:
    """Every parameter and persistent buffer: kind, shape, dtype, other names of the same tensor, and the SHA-256.

    If a weight holds several checkpoint tensors (gate_up_proj: gate, then up) or a padded vocabulary (its real rows),
    ``parts`` are the SHA-256 sums of their rows. If workers share a weight, ``shared_out`` is the dimension along which
    they do.
    """
    first_name: dict[tuple[Any, ...], str] = {}
    found: dict[str, dict[str, Any]] = {}
    kept = model.state_dict(keep_vars=True)
    for name, tensor in kept.items():
        identity = _identity(tensor)
        if identity in first_name:
            found[first_name[identity]]["aliases"].append(name)
            continue
        first_name[identity] = name
        found[name] = {
            "kind": "parameter" if isinstance(tensor, nn.Parameter) else "buffer",
            "shape": list(tensor.shape),
            "dtype": str(tensor.dtype).removeprefix("torch."),
            "aliases": [],
        }
        module = model.get_submodule(name.rpartition(".")[0])
        if tensor.dim() > 1 and (shares := adapters.shared_out(module)):
            found[name]["shared_out"] = shares[0]
        if hashed:
            found[name]["sha256"] = sha256(tensor)
            if parts := _parts(model, name, tensor):
                found[name]["parts"] = parts
    return found


def sha256(tensor: Tensor) -> str:
    """Hex SHA-256 of the tensor's bytes in row-major order, as in a safetensors file."""
    flat = tensor.detach().reshape(-1).contiguous().cpu()
    return hashlib.sha256(flat.view(torch.uint8).numpy().data).hexdigest()


def write(directory: Path, role: str, document: dict[str, Any]) -> None:
    """Write one model's record into this worker's file. The target is loaded first and replaces an earlier file."""
    directory.mkdir(parents=True, exist_ok=True)
    path = file_of_this_worker(directory)
    models = read(directory)["models"] if role == "draft" and path.exists() else {}
    content = {"vllm_version": adapters.vllm_version(), "rank": rank(), "models": models | {role: document}}
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
    partial.replace(path)


def read(directory: Path) -> dict[str, Any]:
    """The snapshot of this worker."""
    content: dict[str, Any] = json.loads(file_of_this_worker(directory).read_text())
    return content


def file_of_this_worker(directory: Path) -> Path:
    """The file of this worker, named after its rank."""
    return directory / f"worker-{rank()}.json"


def rank() -> int:
    """The rank of this worker, from 0."""
    return torch.distributed.get_rank() if torch.distributed.is_initialized() else 0


def _identity(tensor: Tensor) -> tuple[Any, ...]:
    """A key that is equal for two names of one tensor; meta and empty tensors have no address and are all different."""
    if tensor.device.type == "meta" or tensor.numel() == 0:
        return (id(tensor),)
    return (tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype)


def _parts(model: nn.Module, name: str, tensor: Tensor) -> list[str]:
    if tensor.dim() == 0:
        return []
    module = model.get_submodule(name.rpartition(".")[0])
    rows = adapters.checkpoint_rows(module, tensor.shape[0]) or []
    return [sha256(part) for part in torch.split(tensor[: sum(rows)], rows)] if rows else []


def _linears(model: nn.Module) -> dict[str, dict[str, Any]]:
    return {
        name: {
            "class": type(module).__name__,
            "quant_method": adapters.quant_method(module),
            "in": inputs,
            "out": outputs,
        }
        for name, module, inputs, outputs in adapters.linear_layers(model)
    }


def _moe(model: nn.Module) -> dict[str, dict[str, Any]]:
    return {
        name: {"class": type(module).__name__, "quant_method": adapters.quant_method(module)}
        for name, module in adapters.moe_layers(model)
    }
