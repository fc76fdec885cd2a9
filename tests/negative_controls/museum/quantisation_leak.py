"""The target's quantisation settings reach the draft, as at c43152713e of the pull request (vllm#41745)."""

from __future__ import annotations

from typing import Any

from vllm.config import get_current_vllm_config
from vllm.model_executor.models import gemma4_mtp

from conformance.inside_vllm import geometry


def targets_own(vllm_config: Any) -> Any:
    return vllm_config.quant_config


class LeakyMLP(gemma4_mtp.Gemma4MLP):  # type: ignore[misc]
    """The MLP of a release that names no settings for a draft: 0.21 to 0.24 always pass None."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given | {"quant_config": targets_own(get_current_vllm_config())})


if hasattr(gemma4_mtp, "get_draft_quant_config"):
    gemma4_mtp.get_draft_quant_config = targets_own
else:
    gemma4_mtp.Gemma4MLP = LeakyMLP
geometry.main()
