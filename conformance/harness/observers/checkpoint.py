"""What both checkpoints hold, read from their files alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from conformance.harness.checkpoint import (
    Damaged,
    draft_folder,
    read_headers,
    read_json,
    read_optional_json,
    target_folder,
)
from conformance.harness.errors import ObservationError
from conformance.harness.evidence import Evidence
from conformance.harness.profile import Profile
from conformance.harness.servers import Servers


def observe(profile: Profile, _servers: Servers, _evidence: Evidence) -> Mapping[str, Any]:
    """Configs, tensor names with dtype and shape, and of the draft the SHA-256 of every tensor's bytes."""
    try:
        return {
            "target": describe(target_folder(profile.pair), hashed=False),
            "draft": describe(draft_folder(profile.pair), hashed=True),
        }
    except Damaged as damage:
        raise ObservationError(str(damage)) from None


def describe(folder: Path, hashed: bool) -> dict[str, Any]:
    """One checkpoint; raises Damaged."""
    tensors = {
        name: {"dtype": tensor.dtype, "shape": list(tensor.shape)} | ({"sha256": tensor.sha256()} if hashed else {})
        for name, tensor in sorted(read_headers(folder).items())
    }
    return {
        "folder": str(folder),
        "config": read_json(folder / "config.json"),
        "generation_config": read_optional_json(folder / "generation_config.json"),
        "hf_quant_config": read_optional_json(folder / "hf_quant_config.json"),
        "tensors": tensors,
    }
