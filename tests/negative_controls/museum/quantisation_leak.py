"""The target's quantisation settings reach the draft, as at c43152713e of the pull request (vllm#41745)."""

from __future__ import annotations

from typing import Any

from vllm.model_executor.models import gemma4_mtp

from conformance.inside_vllm import geometry


def targets_own(vllm_config: Any) -> Any:
    return vllm_config.quant_config


gemma4_mtp.get_draft_quant_config = targets_own
geometry.main()
