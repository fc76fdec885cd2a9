"""The names of the draft's tensors in vLLM, and how it fuses them (gemma4_mtp.py, hf_to_vllm_mapper)."""

from __future__ import annotations

from collections.abc import Mapping

Shape = tuple[int, ...]

# In vLLM these two are inside the model, in the checkpoint they are beside it.
PROJECTIONS = ("pre_projection.", "post_projection.")


def in_checkpoint(name: str) -> str:
    """The name in the checkpoint for a name in vLLM, except for gate and up, which vLLM fuses."""
    own = name.removeprefix("model.")
    return own if own.startswith(PROJECTIONS) else name


def in_vllm(shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    """Shapes by names in vLLM, from shapes by names in a checkpoint; gate and up are fused, gate first."""
    held: dict[str, Shape] = {}
    for name, (rows, *rest) in shapes.items():
        own = f"model.{name}" if name.startswith(PROJECTIONS) else name
        own = own.replace(".gate_proj.", ".gate_up_proj.").replace(".up_proj.", ".gate_up_proj.")
        held[own] = (held.get(own, (0,))[0] + rows, *rest)
    return held
