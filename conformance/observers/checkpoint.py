"""Reads the contents of both checkpoints from their files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from conformance.checkpoints.headers import (
    TOKEN_ORDER,
    Damaged,
    draft_folder,
    file_hashes,
    read_headers,
    target_folder,
)
from conformance.checkpoints.small_files import small_files, token_order
from conformance.errors import ObservationError
from conformance.evidence.folder import Evidence
from conformance.profile.facts import Case, load_facts
from conformance.profile.profile import Profile
from conformance.serving.pool import ServerPool

# A file of the target above this size is sampled: reading 60 GB takes minutes. The draft is always read as a whole.
WHOLE_UP_TO = 1 << 30


def observe(profile: Profile, _servers: ServerPool, _evidence: Evidence) -> Mapping[str, Any]:
    """Configs, tensors with dtype and shape, tokens, template, and the SHA-256 of every file.

    For the draft also the SHA-256 of every tensor. Large files of the target have a sampled hash instead.

    Raises:
        ObservationError: a file of a checkpoint is damaged.
    """
    cases = load_facts().chat_template.case
    try:
        target, draft = target_folder(profile.pair), draft_folder(profile.pair)
        return {
            "target": describe(target, cases, hashed=False) | _files(target, WHOLE_UP_TO),
            "draft": describe(draft, cases, hashed=True, workers=profile.workers) | _files(draft),
        }
    except Damaged as damage:
        raise ObservationError(str(damage)) from None


def _files(folder: Path, whole_up_to: int | None = None) -> dict[str, Any]:
    whole, sampled = file_hashes(folder, whole_up_to)
    return {"files": whole} | ({"sampled_files": sampled} if sampled else {})


def describe(folder: Path, cases: tuple[Case, ...], hashed: bool, workers: int = 1) -> dict[str, Any]:
    """One checkpoint, with the share of each matrix that every one of several workers holds.

    Raises:
        Damaged: a file cannot be read.
    """
    tensors = read_headers(folder)
    written: dict[str, dict[str, Any]] = {
        name: {"dtype": tensor.dtype, "shape": list(tensor.shape)} | ({"sha256": tensor.sha256()} if hashed else {})
        for name, tensor in sorted(tensors.items())
    }
    for name, tensor in tensors.items():
        if hashed and workers > 1 and len(tensor.shape) == 2:
            written[name]["shares"] = tensor.shares(workers)
    order = tensors.get(TOKEN_ORDER)
    return small_files(folder, cases) | {
        "folder": str(folder),
        "token_order": token_order(order.read(), order.dtype) if order else None,
        "tensors": written,
    }
