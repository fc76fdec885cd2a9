"""How vLLM names and fuses the draft's tensors (gemma4_mtp.py, hf_to_vllm_mapper), in one place."""

from __future__ import annotations

from collections.abc import Mapping

Shape = tuple[int, ...]

# vLLM holds these two inside its model, the checkpoint beside it.
PROJECTIONS = ("pre_projection.", "post_projection.")


def in_checkpoint(name: str) -> str:
    """A tensor's name in the checkpoint from vLLM's, but for gate and up, which vLLM has as one."""
    own = name.removeprefix("model.")
    return own if own.startswith(PROJECTIONS) else name


def in_vllm(shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    """Shapes by a checkpoint's names, as vLLM has them: projections inside the model, gate above up as one."""
    held: dict[str, Shape] = {}
    for name, (rows, *rest) in shapes.items():
        own = f"model.{name}" if name.startswith(PROJECTIONS) else name
        own = own.replace(".gate_proj.", ".gate_up_proj.").replace(".up_proj.", ".gate_up_proj.")
        held[own] = (held.get(own, (0,))[0] + rows, *rest)
    return held
