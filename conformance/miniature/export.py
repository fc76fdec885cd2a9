"""Exports the trained twins as checkpoints: BF16 target, NVFP4 target, draft, and a manifest with their hashes."""

from __future__ import annotations

import hashlib
import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from conformance.miniature import checkpoint_config, convert_nvfp4, data
from conformance.miniature.checkpoint_config import FAMILIES, WINDOW, Family
from conformance.miniature.model import Draft, Experts, Target
from conformance.miniature.train import new_target, plain_state

PACKAGES = ("torch", "transformers", "tokenizers", "safetensors")


def write_json(path: Path, content: Any) -> None:
    """Write indented, sorted JSON; the same content gives the same bytes."""
    path.write_text(json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def export(
    folder: Path,
    family: Family,
    tokenizer: PreTrainedTokenizerFast,
    target: Target,
    draft: Draft,
    calibrate: data.Batch,
) -> None:
    """Write ``target-bf16``, ``draft`` and, if the family is quantised, ``target-nvfp4`` into the folder."""
    common = {"dtype": "bfloat16", "transformers_version": version("transformers")}
    text = {"architectures": ["Gemma4ForCausalLM"], "model_type": "gemma4_text"}
    target_config = family.target | text | common | {"eos_token_id": checkpoint_config.GENERATION["eos_token_id"]}
    state = plain_state(target) | unread_keys_values(family.target)
    _checkpoint(folder / "target-bf16", tokenizer, target_config, state)

    assistant = {"architectures": ["Gemma4AssistantForCausalLM"], "model_type": "gemma4_assistant"}
    draft_text = family.draft["text_config"] | {"model_type": "gemma4_text", "dtype": "bfloat16"}
    _checkpoint(
        folder / "draft",
        tokenizer,
        family.draft | assistant | common | {"text_config": draft_text},
        plain_state(draft),
    )
    if family.quantised:
        convert_nvfp4.convert(folder / "target-bf16", folder / "target-nvfp4", largest_inputs(target, calibrate))


def unread_keys_values(config: dict[str, Any]) -> dict[str, Tensor]:
    """Keys and values of the layers that share another layer's: E2B's checkpoint holds them, and nobody reads them."""
    first, own = len(config["layer_types"]) - config["num_kv_shared_layers"], config | {"num_kv_shared_layers": 0}
    names = ("k_proj.weight", "v_proj.weight", "k_norm.weight")
    layers = (f"model.layers.{index}.self_attn." for index in range(first, len(config["layer_types"])))
    wanted = {layer + name for layer in layers for name in names}
    return {name: tensor for name, tensor in new_target(own, seed=0).state_dict().items() if name in wanted}


def read_target(folder: Path) -> tuple[Target, PreTrainedTokenizerFast]:
    """The twin of a shipped BF16 target, in float32, and its tokenizer."""
    family = FAMILIES[folder.parent.name]
    target, unread = Target(family.target), unread_keys_values(family.target)
    held = load_file(folder / "model.safetensors").items()
    target.load_state_dict({name: tensor.float() for name, tensor in held if name not in unread})
    return target, PreTrainedTokenizerFast.from_pretrained(folder)


def _checkpoint(
    folder: Path, tokenizer: PreTrainedTokenizerFast, config_json: dict[str, Any], state: dict[str, Tensor]
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: rounded(tensor).contiguous() for name, tensor in sorted(state.items())}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    write_json(folder / "config.json", config_json)
    write_json(folder / "generation_config.json", checkpoint_config.GENERATION)
    tokenizer.save_pretrained(folder)


def rounded(tensor: Tensor) -> Tensor:
    """In BF16; integers stay, because BF16 holds only those up to 256."""
    return tensor.detach().to(torch.bfloat16) if tensor.is_floating_point() else tensor.detach()


@torch.no_grad()
def largest_inputs(target: Target, batch: data.Batch) -> dict[str, float]:
    """The largest absolute input of each fused expert tensor on a batch, for calibrating ``input_scale``."""
    found: dict[str, float] = {}

    def watch(name: str) -> Any:
        def hook(experts: Experts, inputs: tuple[Tensor, Tensor]) -> None:
            x, weights = inputs
            inner = experts.inner(x) * (weights > 0).unsqueeze(-1)
            found[f"{name}.gate_up_proj"] = float(x.abs().max())
            found[f"{name}.down_proj"] = float(inner.abs().max())

        return hook

    hooks = [
        layer.experts.register_forward_pre_hook(watch(f"model.layers.{index}.experts"))
        for index, layer in enumerate(target.model.layers)
    ]
    batch = batch.to(target.model.embed_tokens.weight.device)
    with torch.compiler.set_stance("force_eager"):
        target(batch.ids, batch.positions, batch.masks(WINDOW))
    for hook in hooks:
        hook.remove()
    return found


def made_with(device: torch.device) -> dict[str, Any]:
    """The software and the machine that made files or figures."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    return {
        "packages": {package: version(package) for package in PACKAGES},
        "python": platform.python_version(),
        "architecture": platform.machine(),
        "device": name,
    }


def manifest(folder: Path, plan: Path, made: dict[str, Any], evaluation: dict[str, Any]) -> dict[str, Any]:
    """The SHA-256 of every shipped file, how it was made, and the evaluation."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.parent != folder)
    return {
        "files": {path.relative_to(folder).as_posix(): sha256(path) for path in files},
        "bytes": sum(path.stat().st_size for path in files),
        "curriculum": {"file": plan.name, "sha256": sha256(plan)},
        "made": made,
        "evaluation": evaluation,
    }


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
