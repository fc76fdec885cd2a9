"""Identifies the target's weights, so that the suite notices gold answers of other weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from conformance import FIXTURES
from conformance.checkpoints.headers import target_folder, weights_sha256
from conformance.errors import Unsupported
from conformance.evidence.folder import Evidence
from conformance.profile.profile import Profile
from conformance.serving.pool import ServerPool
from conformance.workload.prompts import MIXED


def observe(profile: Profile, _servers: ServerPool, _evidence: Evidence) -> Mapping[str, Any]:
    """The name of the pair's file of gold answers, and the SHA-256 of the target's weights.

    Raises:
        Unsupported: there are no gold answers for these prompts or this pair.
    """
    if (profile.prompts / MIXED).read_bytes() != (FIXTURES / "prompts" / MIXED).read_bytes():
        raise Unsupported("There are no gold answers for a data set.")
    file = FIXTURES / "gold" / f"{profile.pair.name}.jsonl"
    if not file.is_file():
        raise Unsupported(f"There are no gold answers for {profile.pair.name}: fixtures/gold has no {file.name}.")
    return {"file": file.name, "weights_sha256": weights_sha256(target_folder(profile.pair))}
