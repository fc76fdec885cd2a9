"""Captures inputs and outputs of the draft's steps while the server answers requests.

Hooks record between ``begin`` and ``end`` and are removed afterwards. CUDA graphs and compiled code run no hooks, so
this needs ``--enforce-eager`` and is Unsupported without it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from conformance.errors import Unsupported
from conformance.inside_vllm import adapters

TOP = 20  # so many largest logits of each row are kept, with their token ids
LONGEST = 4000  # at most so many calls of the draft are kept


class Capture:
    """Records the calls of the draft from its creation until ``end``."""

    def __init__(self, worker: Any) -> None:
        """Begin to record.

        Raises:
            Unsupported: the draft, or its head, does not run eagerly.
        """
        if not adapters.follow(worker, "vllm_config.model_config.enforce_eager"):
            raise Unsupported(f"vLLM {adapters.vllm_version()} runs no hooks in its graphs: use --enforce-eager.")
        if adapters.draft_head_has_graphs(worker):
            raise Unsupported(
                f"vLLM {adapters.vllm_version()} has CUDA graphs for the draft's head even with --enforce-eager, "
                "and graphs run no hooks: use VLLM_USE_V2_MODEL_RUNNER=1."
            )
        self.calls: list[dict[str, Tensor]] = []
        self.logits: list[dict[str, Tensor]] = []
        predictor: nn.Module = adapters.follow(adapters.draft_model(worker), "model")
        head, self._hidden = adapters.draft_head(worker)
        self._hooks = [
            predictor.register_forward_hook(self._draft_step, with_kwargs=True),
            head.register_forward_hook(self._logits),
        ]

    def _draft_step(self, _: nn.Module, given: tuple[Any, ...], named: dict[str, Any], made: tuple[Any, ...]) -> None:
        names = ("input_ids", "positions", "hidden_states", "intermediate_tensors", "inputs_embeds")
        inputs = dict(zip(names, given, strict=False)) | named
        kept = {name: inputs.get(name) for name in ("input_ids", "positions", "hidden_states", "inputs_embeds")}
        kept |= dict(zip(("draft_hidden", "projected"), made, strict=True))
        self._keep(self.calls, {name: value for name, value in kept.items() if value is not None})

    def _logits(self, _: nn.Module, given: tuple[Any, ...], made: Tensor | None) -> None:
        if made is None:  # with several workers, perhaps only the first one has logits
            return
        top = made.float().topk(TOP, -1)
        self._keep(self.logits, {"hidden": given[self._hidden], "values": top.values, "ids": top.indices})

    @staticmethod
    def _keep(where: list[dict[str, Tensor]], tensors: dict[str, Tensor]) -> None:
        if len(where) < LONGEST:
            where.append({name: value.detach().clone().cpu().contiguous() for name, value in tensors.items()})

    def end(self, file: Path) -> int:
        """Remove the hooks and write the records ``call.N.…`` and ``logits.N.…``; return the number of calls."""
        for hook in self._hooks:
            hook.remove()
        kinds = {"call": self.calls, "logits": self.logits}
        tensors = {
            f"{kind}.{number:05}.{name}": value
            for kind, seen in kinds.items()
            for number, each in enumerate(seen)
            for name, value in each.items()
        }
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors or {"none": torch.zeros(1)}, file)
        return len(self.calls)
