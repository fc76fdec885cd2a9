"""Records of server starts: the command and the environment of each server, written before it runs."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from conformance.errors import ObservationError
from conformance.evidence.folder import now, write_atomically
from conformance.evidence.redaction import redact_command, redact_environment
from conformance.formats.json_files import parse_json
from conformance.formats.json_schema import first_violation
from conformance.serving.server import Server

FOLDER = "servers"
SCHEMA = Path(__file__).parent / "start.schema.json"
# Settings of the engine and of its libraries are recorded. Of the rest, only settings that the launch itself makes.
TELLING = (
    *("VLLM_", "CUDA_", "NVIDIA_", "NCCL_", "FLASHINFER_", "TRITON_", "TORCH", "PYTORCH_", "HF_", "TRANSFORMERS_"),
    *("OMP_", "KMP_", "GOMP_", "MKL_", "OPENBLAS_", "LD_PRELOAD", "LD_LIBRARY_PATH", "CONFORMANCE_"),
)


@dataclass(frozen=True)
class Started:
    """One start: the command and the environment settings, both without secrets, and the time."""

    name: str  # its log is logs/<name>.log
    started: str
    command: tuple[str, ...]
    environment: Mapping[str, str]


def write_start(directory: Path, server: Server, environment: Mapping[str, str]) -> None:
    """Record a server that is about to start."""
    folder = directory / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    chosen = {name: value for name, value in sorted(environment.items()) if _matters(name, value)}
    command = tuple(redact_command(server.command, environment))
    note = Started(server.log.stem, now(), command, redact_environment(chosen, environment))
    write_atomically(folder / f"{note.name}.json", json.dumps(asdict(note), indent=1, ensure_ascii=False) + "\n")


def read_starts(directory: Path) -> list[Started]:
    """Every start in the evidence, by name.

    Raises:
        ObservationError: a record cannot be read or does not match its schema.
    """
    found = []
    for path in sorted((directory / FOLDER).glob("*.json")):
        try:
            note = parse_json(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ObservationError(f"{path} cannot be read: {error}") from error
        if wrong := first_violation(SCHEMA, note):
            raise ObservationError(f"{path} does not match its schema: {wrong.message[:300]}")
        found.append(Started(**{**note, "command": tuple(note["command"])}))
    return found


def _matters(name: str, value: str) -> bool:
    return name.startswith(TELLING) or os.environ.get(name) != value
