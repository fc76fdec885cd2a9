"""The draft's MLP at half its width: 4096 for 26B-A4B, as in the first head of the pull request (vllm#41745)."""

from __future__ import annotations

from typing import Any

from vllm.model_executor.models import gemma4_mtp

from conformance.inside_vllm import geometry

healthy = gemma4_mtp.Gemma4MLP


def half_as_wide(*, intermediate_size: int, **rest: Any) -> Any:
    return healthy(intermediate_size=intermediate_size // 2, **rest)


gemma4_mtp.Gemma4MLP = half_as_wide
geometry.main()
