"""Which weights the server holds, so that gold answers of other weights are noticed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from conformance import FIXTURES
from conformance.harness.checkpoint import read_headers, target_folder
from conformance.harness.errors import Unsupported
from conformance.harness.evidence import Evidence
from conformance.harness.profile import Profile
from conformance.harness.servers import Servers


def observe(profile: Profile, _servers: Servers, _evidence: Evidence) -> Mapping[str, Any]:
    """Name of the pair's gold file, and the SHA-256 of the target's weights; Unsupported without gold answers."""
    if profile.prompts != FIXTURES / "prompts":
        raise Unsupported("There are no gold answers for a data set.")
    file = FIXTURES / "gold" / f"{profile.pair.name}.jsonl"
    if not file.is_file():
        raise Unsupported(f"There are no gold answers for {profile.pair.name}: fixtures/gold has no {file.name}.")
    return {"file": file.name, "weights_sha256": weights_sha256(target_folder(profile.pair))}


def weights_sha256(folder: Path) -> str:
    """SHA-256 of the bytes of a checkpoint's weight files, one after the other in the order of their names."""
    digest = hashlib.sha256()
    for path in sorted({tensor.file for tensor in read_headers(folder).values()}):
        with path.open("rb") as file:
            while block := file.read(1 << 24):
                digest.update(block)
    return digest.hexdigest()
